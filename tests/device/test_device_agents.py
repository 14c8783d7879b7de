"""Every agent on every embedded task: the same perturbations, verdicts, queries and objectives on the card."""

import pytest
from same import AGENTS, TASKS, both, differences, fitting, made, play_both

from advgym import attack, verify

pytestmark = pytest.mark.device
BUDGET, IDS = 6, [0, 1]
# The same code as on the karate club, at five times the nodes; the last takes a minute.
LARGE = ("graph/sbm-global", "graph/sbm-rewire", "graph/sbm-inject")
# Echoes of drawn rooms, and the mean over them, round otherwise on a card, and a search's path follows the last bit.
ROUNDS = ("speech/synth-rooms",)
# Where each query is a training run, tests/device/test_device_training.py asks the victims alone.


@pytest.mark.parametrize("name", [n for n in TASKS if "-poison" not in n and n not in (*LARGE, *ROUNDS)])
def test_agents_find_the_same_on_the_card(name):
    task = made(name, BUDGET)
    wrong = {entry.name: found for entry in fitting(task) if (found := play_both(task, entry, IDS))}
    assert not wrong, wrong


def test_every_agent_is_played():
    played = {
        entry.name
        for name in TASKS
        if "-poison" not in name and name not in LARGE
        for entry in fitting(made(name, BUDGET))
    }
    # A language model; training runs.
    assert set(AGENTS) - played == {"bae", "bert-attack", "clare", "metattack", "badnets", "clean-label"}


@pytest.mark.parametrize(
    ("name", "agent"),
    [("image/digits-linf", "pgd"), ("image/digits-pixel", "greedy"), ("text/synth-wordswap", "first-order"),
     ("graph/karate-edge", "genetic"), ("speech/synth-keyword", "square")],
)  # fmt: skip
def test_a_whole_run_and_its_verification(name, agent, tmp_path):
    """Clean accuracy, control, flags, columns, the file and its verification."""

    spelt = "cuda" if name.endswith("pixel") else "cuda:0"

    def run(device):
        where = "cpu" if str(device) == "cpu" else spelt
        result = attack(name, agent, episodes=4, lanes=2, queries=BUDGET, device=where, out=tmp_path / f"{where}.json")
        assert verify(result, device=where) == []
        return result

    here, there = both(run)
    assert not isinstance(here, str) and not isinstance(there, str), (here, there)
    assert differences(here.samples, there.samples) == []
    for part in ("clean_accuracy", "control_rate", "success_rate", "flags", "columns", "asked"):
        assert getattr(here, part) == getattr(there, part), part
    assert verify(tmp_path / f"{spelt}.json") == []  # what was found there holds here
