"""Every agent that plays a task of two channels, on the first of each kind."""

import pytest
from table import keeps_the_rules, rows


@pytest.mark.parametrize(("agent", "task"), rows("fusion"))
def test_an_agent_keeps_the_rules(agent, task):
    keeps_the_rules(agent, task)
