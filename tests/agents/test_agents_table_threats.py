"""Every agent under every threat model of a toy task."""

import pytest
import toy
from table import AGENTS, plays

from advgym import attack, verify


@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_an_agent_plays_every_threat_model(name, kind, least, goal):
    entry = AGENTS[name]
    if not plays(name, toy.task(kind)):
        return
    task = toy.task(kind, knowledge=entry.knowledge, least=least, goal=goal, queries=40, gradients=40)
    result = attack(task, name, episodes=12, lanes=5)
    assert not [f for f in result.flags if "crashed" in f], result.flags
    assert result.invalid_rate == 0 and verify(result, task=task) == []
