"""Prefix beam search against the sum over every path."""

import itertools
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.envs.speech.goals.beam import beam
from advgym.envs.speech.goals.decode import compact, greedy, tidied


def exhaustive(scores: torch.Tensor, space: int) -> list[int]:
    """The transcript of the greatest probability, by listing all V^T paths."""
    logp = torch.log_softmax(scores.double(), 1)
    mass = defaultdict(float)
    for path in itertools.product(range(scores.shape[1]), repeat=scores.shape[0]):
        read = tuple(k for k, _ in itertools.groupby(path) if k)
        mass[read] += float(sum(logp[t, k] for t, k in enumerate(path)).exp())
    best = max(mass, key=mass.get)
    return tidied(torch.tensor([list(best) + [-1] * (scores.shape[0] - len(best))]), space)[0].tolist()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 5), symbols=st.integers(2, 4), space=st.integers(0, 1))
def test_a_wide_beam_is_exact(seed, frames, symbols, space):
    make = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, frames, symbols, generator=make) * 2
    found = beam(scores, width=symbols**frames, space=space)
    assert found.tolist() == [exhaustive(row, space) for row in scores]
    assert torch.equal(found[1:2], beam(scores[1:2], width=symbols**frames, space=space))


def test_it_sums_paths_where_greedy_reads_the_best_one():
    scores = torch.tensor([[[0.55, 0.45], [0.55, 0.45]]]).log()  # "" has .3025 in all, symbol 1 the rest
    assert greedy(scores, 0).tolist() == [[-1, -1]] and beam(scores, 0, 4).tolist() == [[1, -1]]


def test_a_narrow_beam_of_sure_scores_is_greedy():
    make = torch.Generator().manual_seed(0)
    path = torch.randint(0, 6, (8, 40), generator=make)
    scores = torch.nn.functional.one_hot(path, 6) * 30.0 + torch.randn(8, 40, 6, generator=make)
    for width in (1, 3, 8):
        assert torch.equal(beam(scores, 1, width), greedy(scores, 1))


def test_rows_stay_apart_and_nothing_breaks_it():
    make = torch.Generator().manual_seed(1)
    scores = torch.randn(5, 30, 7, generator=make)
    together = beam(scores, width=6)
    assert all(torch.equal(together[i : i + 1], beam(scores[i : i + 1], width=6)) for i in range(5))
    scores[1, 3, 2], scores[2] = torch.nan, -torch.inf
    assert (beam(scores, width=6)[1:3] == -1).all() and torch.equal(beam(scores, width=6)[3:], together[3:])
    scores[3, :, 1:] = -torch.inf
    assert (beam(scores, width=6)[3] == -1).all()
    assert beam(torch.zeros(2, 4, 1)).tolist() == [[-1] * 4] * 2
    assert beam(torch.zeros(0, 4, 3)).shape == (0, 4)
    with pytest.raises(ValueError, match="width"):
        beam(scores, width=0)


def test_spaces_are_tidied():
    ids = torch.tensor([[1, 1, 3, 1, 1, 2, 1], [1, -1, -1, -1, -1, -1, -1]])
    assert tidied(ids, 1).tolist() == [[3, 1, 2, -1, -1, -1, -1], [-1] * 7]
    assert tidied(ids, 0) is ids
    assert compact(ids, ids > 1).tolist()[0] == [3, 2, -1, -1, -1, -1, -1]
