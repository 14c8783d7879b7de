"""Every agent that plays an image task, on the first of each kind."""

import pytest
from table import keeps_the_rules, rows


@pytest.mark.parametrize(("agent", "task"), rows("image"))
def test_an_agent_keeps_the_rules(agent, task):
    keeps_the_rules(agent, task)
