"""The figures of a run take each clean answer once; checks ask for themselves, and the verifier asks again."""

from collections import Counter

import pytest
import torch
import toy

from advgym import Victim, attack, verify
from advgym.core.clean import Clean
from advgym.core.env import AttackEnv

IDS = list(range(12))


class Heard:
    """Counts the rows that it is asked, by content."""

    def __init__(self):
        self.layer, self.rows = toy.linear(), Counter()

    def __call__(self, x):
        self.rows.update(row.numpy().tobytes() for row in x.detach())
        return self.layer(x)


def times(heard):
    """How often each clean sample was asked about, the most."""
    return max(heard.rows[row.numpy().tobytes()] for row in toy.samples())


@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("options", [{}, {"goal": "targeted"}, {"knowledge": "transfer"}])
def test_a_run_asks_each_clean_sample_once_for_its_figures(kind, options):
    heard = Heard()
    task = toy.task(kind, victim=Victim(heard, access="scores"), queries=4, **{"knowledge": "score", **options})
    result = attack(task, "random-search", episodes=12, lanes=4)
    assert result.attacked > 0 and result.asked["clean"] == len(toy.samples())
    checks = result.asked.get("flags", 0)
    assert times(heard) <= 1 + min(checks, 3)  # alone and together, an input nobody reads: checks of their own
    assert result.asked["verdict"] <= result.attacked and result.asked["control"] <= result.attacked
    heard.rows.clear()
    assert verify(result, task=task) == [] and times(heard) >= 1  # it believes nothing of the file


def test_shared_answers_are_those_that_are_asked_anew():
    task = toy.task(queries=4)
    clean = Clean(task, "test", torch.device("cpu"), task.victim.on(torch.device("cpu")))
    one, two = AttackEnv(task, assigned=IDS, clean=clean), AttackEnv(task, assigned=IDS)
    first, second = one.reset(seed=0)[0], two.reset(seed=0)[0]
    assert all(torch.equal(first[k], second[k]) for k in first) and bool(clean.known[IDS].all())
    assert torch.equal(one.live, two.live)


def test_under_transfer_the_truth_is_the_victims():
    task = toy.task(knowledge="transfer", queries=4)
    env = AttackEnv(task, assigned=IDS)
    obs, _ = env.reset(seed=0)
    scores, truth, right = env._clean.of(IDS)
    assert torch.allclose(truth, toy.linear()(toy.samples()[IDS])) and torch.equal(obs["scores"], scores)
    assert torch.allclose(scores, toy.linear(1)(toy.samples()[IDS]))
    assert torch.equal(right, truth.argmax(1) == task.samples("test", IDS).labels)
