"""ROVER: the vote over transcripts by hand, and as scores."""

import pytest
import torch

from advgym import AdvgymError, make_task, registry
from advgym.agents.defenses.randomised.speech_rover import path, rover, vote_rows
from advgym.envs.speech.goals.decode import greedy


@pytest.mark.parametrize(
    ("texts", "voted"),
    [
        (["one two three"], "one two three"),
        (["one two", "one six", "nine six"], "one six"),
        (["one two three", "one three", "one two three"], "one two three"),
        (["one three", "one two three", "one three"], "one three"),
        (["a b c d", "b c d", "a b d"], "a b c d"),
        (["", "one", "one"], "one"),
        (["", "", "one"], ""),
        (["one", "two"], "one"),
    ],
)
def test_by_hand(texts, voted):
    assert rover([t.split() for t in texts]) == voted.split()


def test_rows_and_paths_read_the_same():
    draws = [[[2, 3, 1, 4, 4], [2, 3, 1, 4, 4], [5, -1, -1, -1, -1]], [[-1] * 5, [-1] * 5, [2, -1, -1, -1, -1]]]
    voted = vote_rows(torch.tensor(draws), 1)
    assert voted.tolist() == [[2, 3, 1, 4, 4], [-1] * 5]
    wide = torch.nn.functional.pad(voted, (0, 3), value=-1)
    assert torch.equal(greedy(path(wide, 6)), wide)


def test_the_scores_read_the_vote_and_know_no_neighbours():
    task = make_task("speech/synth-transcribe", defenses=[("rover", {"draws": 3, "noise": 0.03})])
    x = task.samples("test", [0, 1, 2]).x
    keys = torch.tensor([5, 6, 7])
    whole = task.victim(x, keys)
    assert task.victim.keyed and task.victim.draws == 1
    assert torch.allclose(task.victim(x[1:2], keys[1:2])[0], whole[1], atol=1e-3)
    at = x.requires_grad_()
    for adaptive in (True, False):
        guard = registry.defense("rover").defend(make_task("speech/synth-transcribe").victim, task, draws=2,
                                                 adaptive=adaptive)  # fmt: skip
        (g,) = torch.autograd.grad(guard(at, keys)[..., 1].sum(), at)
        assert g.isfinite().all() and g.any()


def test_classes_are_for_smoothing():
    with pytest.raises(AdvgymError, match="smoothing"):
        make_task("speech/synth-keyword", defenses=["rover"])
