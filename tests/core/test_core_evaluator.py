"""The evaluator's side of an environment: made where the environment was made, and nowhere else."""

import pytest
import torch
import toy

from advgym import AdvgymError, make
from advgym.clients.views import edit_view
from advgym.judge.evaluator import evaluator


def test_it_reads_what_no_observation_carries():
    env = make(toy.task(), 4)
    obs, _ = env.reset(seed=0)
    ours = evaluator(env)
    assert torch.equal(ours.batch.labels, ours.episodes.ref) and "label" not in obs
    env.step(env.threat.random(1))
    assert ours.book is evaluator(env).book and ours.book.used.tolist() == [1] * 4
    assert torch.equal(ours.form(), ours.batch.look(ours.book.held).form) and len(ours.stored()) == 4
    assert ours.task.name == "toy/field" and ours.targets is None


def test_it_deals_targets_of_its_own():
    env = make(toy.task(goal="targeted"), 2)
    env.reset(seed=0)
    ref = evaluator(env).episodes.ref.tolist()
    wanted = [(r + 1) % toy.CLASSES for r in ref]
    evaluator(env).deal(evaluator(env).batch.ids.tolist(), wanted, 3)
    assert evaluator(env).targets == wanted


@pytest.mark.parametrize("what", [None, "image/digits-linf", edit_view(make(toy.task("edits"), 2))])
def test_nothing_else_has_one(what):
    with pytest.raises(AdvgymError, match="no evaluator's side"):
        evaluator(what)
