"""Two searches on every task of real data."""

import pytest
from table import BUDGET, EPISODES, embedded

from advgym import attack, registry, verify

# Its victim learns for ten minutes; tests/text/test_text_translation.py has a small one.
LONG = {"text/multi30k-wordswap"}
REAL = [
    n for n, row in registry._built_in().tasks.items() if row.get("dataset") and not embedded(row) and n not in LONG
]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("task", REAL)
def test_real_tasks_are_played(task, data_dir):
    training = "-poison" in task  # each query is a training run
    episodes, budget = (1, {"queries": 4, "gradients": 4}) if training else (EPISODES, BUDGET)
    for agent in ("random-search",) if training else ("random-search", "genetic"):
        result = attack(task, agent, episodes=episodes, lanes=episodes, **budget)
        assert result.attacked and not [f for f in result.flags if "crashed" in f] and verify(result) == []
