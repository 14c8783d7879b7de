"""Every agent with next to nothing to spend."""

import pytest
import toy
from table import AGENTS, plays

from advgym import attack


@pytest.mark.parametrize("queries", [1, 2, 3])
@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_survives_a_tiny_budget(name, kind, queries):
    entry = AGENTS[name]
    if not plays(name, toy.task(kind)):
        return
    task = toy.task(kind, knowledge=entry.knowledge, queries=queries, gradients=1)
    result = attack(task, name, episodes=8, lanes=8)
    assert not [f for f in result.flags if "crashed" in f], result.flags
    assert all(s.queries <= queries and s.gradients <= 1 for s in result.samples)
