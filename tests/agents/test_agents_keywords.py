"""The search for several keywords: its merit, slope and draws against plain Python, and that it writes two at once."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym import attack
from advgym.agents.shared.keywords import drawn, fresh, likelihoods, names, one_less, placed, slope, wanted
from advgym.core.rng import Draws
from advgym.judge.evaluator import evaluator

HEADLINES = "text/synth-headline"


def rand(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(3, 6))
def test_placed_is_the_best_of_all_placings(seed, many, length):
    likely = rand(seed, 2, many, length)
    likely = likely.round(decimals=seed % 3)  # ties too
    for row, found in zip(likely, placed(likely), strict=True):
        ways = itertools.permutations(range(length), many)
        want = max(sum(float(row[j, t]) for j, t in enumerate(way)) for way in ways)
        assert float(found.sum()) == pytest.approx(want, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_the_slope_is_that_of_the_likelihoods(seed, many):
    scores = (4 * rand(seed, 3, 5, 7)).requires_grad_()
    token = torch.rand(3, 7, generator=torch.Generator().manual_seed(seed)).argsort(1)[:, :many]
    token[0, 0] = -1  # a lane with one less
    weight = rand(seed + 1, 3, many).abs()
    likely = likelihoods(scores, token)
    everyone = scores.log_softmax(2)
    for lane, j in itertools.product(range(3), range(many)):
        want = 0 * everyone[lane, :, 0] if token[lane, j] < 0 else everyone[lane, :, token[lane, j]]
        torch.testing.assert_close(likely[lane, j], want)
    said = scores.argmax(2)
    share = torch.zeros(3, many, 5)
    for lane, j in itertools.product(range(3), range(many)):
        others = [int(w) for i, w in enumerate(token[lane]) if i != j and w >= 0]
        free = torch.tensor([int(w) not in others for w in said[lane]])
        if token[lane, j] >= 0 and bool(free.any()):  # the position mask: none where another keyword stands
            share[lane, j, free] = likely[lane, j, free].detach().softmax(0)
    (g,) = torch.autograd.grad((share * likely * weight.unsqueeze(2)).sum(), scores)
    torch.testing.assert_close(slope(scores.detach(), token, likely.detach(), weight), g, atol=1e-5, rtol=1e-4)


EDIT = st.tuples(st.integers(0, 4), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(EDIT, min_size=1, max_size=8), st.lists(st.lists(EDIT, max_size=3, unique=True), max_size=4),
       st.lists(EDIT, max_size=2, unique=True), st.randoms())  # fmt: skip
def test_nothing_is_asked_twice(found, asked, base, chance):
    def name(edits):
        edits = list(edits)
        chance.shuffle(edits)  # a set has no order
        return names(torch.tensor([*edits, (-1, -1)])).sum()

    told = torch.stack([name(e) for e in asked]).view(1, -1) if asked else torch.zeros(1, 0, dtype=torch.int64)
    got = fresh(torch.tensor([[*found, (-1, -1)]]), name(base).view(1), told)[0].tolist()
    for at, edit in enumerate(found):
        before = {frozenset(e) for e in asked}
        new = edit not in found[:at] and (edit in base or frozenset([*base, edit]) not in before)
        assert edit in base or got[at] == new
    assert got[-1] is False


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 9))
def test_draws_hold_the_best_and_no_index_twice(seed, size, many):
    usable = rand(seed, 1, size) > -0.3
    best = many // 2
    at = drawn(usable, many, best, Draws(seed, torch.tensor([1])).uniform(size))[0].tolist()
    taken = [i for i in at if i >= 0]
    fine = usable[0].nonzero().squeeze(1).tolist()
    assert len(at) == many and len(taken) == min(many, len(fine)) == len(set(taken))
    assert set(taken) <= set(fine) and set(fine[: min(best, len(taken))]) <= set(taken)


@settings(max_examples=60, deadline=None)
@given(st.lists(EDIT, max_size=4, unique_by=lambda e: e[0]), st.integers(1, 4), st.booleans(), st.integers(0, 999))
def test_one_edit_goes_where_the_set_is_full(held, limit, anyway, seed):
    state = torch.tensor([[*held, *[(-1, -1)] * (4 - len(held))]])
    u = Draws(seed, torch.tensor([1])).uniform(4)
    left = [tuple(e) for e in one_less(state, torch.tensor([limit]), u, torch.tensor([[anyway]]))[0].tolist()]
    left = [e for e in left if e[0] >= 0]
    assert set(left) <= set(held)
    assert len(held) - len(left) == (bool(held) and (len(held) >= limit or (anyway and len(held) > 1)))


@pytest.mark.parametrize("many", [1, 2, 3])
def test_the_surrogate_tells_the_keywords(many):
    env = advgym.make(HEADLINES, 12, goal="keyword", keywords=many)
    env.reset(seed=2)
    token, scores = wanted(env)
    for got, target in zip(token.tolist(), evaluator(env).episodes.target.tolist(), strict=True):
        assert sorted(got) == sorted(w for w in target if w >= 0)
    torch.testing.assert_close(scores, evaluator(env).episodes.scores, atol=1e-4, rtol=1e-4)
    spent = env.threat.model.queries - evaluator(env).book.queries_left
    assert spent.tolist() == [1] * 12


def test_two_keywords_are_written_at_once():
    result = attack(HEADLINES, "seq2sick", goal="keyword", keywords=2, episodes=20, lanes=20, queries=120)
    assert result.success_rate >= 0.1 > result.control_rate and not [f for f in result.flags if "crashed" in f]
    assert all(len(s.perturbation["edits"]) <= 4 for s in result.samples if s.success)
