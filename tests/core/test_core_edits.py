"""Edits: sets of (site, choice), the algebra of compose, masks, storage; for every kind of key."""

import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.core.edits import KEYS, EditsBatch, _choose
from advgym.core.moves import choice_moves, edit_mask, site_moves
from advgym.errors import DataError

N, SITES, ROWS = 3, 5, 4


class Plain(EditsBatch):
    """A table of random holes, with no model behind it."""

    def __init__(self, key, probe=None, limit=(1, 2, 3), rows=ROWS, seed=0):
        self.sites, self.choices = SITES, SITES if key == "pair" else 4
        self.key, self.probe, self.rows_max = key, probe, rows
        self.ids, self.labels = torch.arange(N), torch.zeros(N, dtype=torch.int64)
        self.limit = torch.tensor(limit)
        g = torch.Generator().manual_seed(seed)
        self.grid = torch.rand(N, self.sites, self.choices, generator=g) < 0.7
        if key == "pair":
            upper = torch.ones(self.sites, self.sites).triu(1).bool()
            self.grid = (self.grid & upper) | (self.grid & upper).transpose(1, 2)
        if probe is not None:
            self.grid[:, :, probe] = False

    def payload(self, row, site, choice):
        return f"w{site}{choice}" if self.key == "site" else None


keys = pytest.mark.parametrize("key", KEYS)
number = st.one_of(st.integers(-2, SITES + 1), st.sampled_from([-(2**63), 2**63 - 1, 2**40]))
proposal = st.lists(st.tuples(number, number), min_size=ROWS, max_size=ROWS)
edits = st.tuples(st.integers(0, SITES - 1), st.integers(0, 3))
common = settings(max_examples=80, deadline=None)


def every(rows):
    return torch.tensor(rows).view(1, -1, 2).expand(N, -1, -1).contiguous()


def as_set(p):
    return {tuple(e) for e in p.tolist() if e != [-1, -1]}


def key_of(b, edit):
    s, c = edit
    return {"site": s, "pair": (min(s, c), max(s, c)), "cell": (s, c)}[b.key]


def by_hand(b, lane, rows):
    """(real, valid) of a proposal, in plain Python."""
    real, seen = True, set()
    for s, c in rows:
        if (s, c) == (-1, -1):
            continue
        there = 0 <= s < b.sites and 0 <= c < b.choices
        legal = there and (bool(b.grid[lane, s, c]) or (c == b.probe and bool(b.grid[lane, s].any())))
        if not legal or key_of(b, (s, c)) in seen:
            real = False
            break
        seen.add(key_of(b, (s, c)))
    probes = any(c == b.probe and s >= 0 for s, c in rows)
    return real, real and len(seen) <= int(b.limit[lane]) and not probes


@keys
@pytest.mark.parametrize("probe", [None, 3])
@common
@given(rows=proposal)
def test_look_agrees_with_plain_python(key, probe, rows):
    b = Plain(key, probe if key != "pair" else None)
    look = b.look(every(rows))
    for lane in range(N):
        assert (look.real[lane].item(), look.valid[lane].item()) == by_hand(b, lane, rows)
    assert torch.equal(look.null, torch.full((N,), as_set(every(rows)[0]) == set()))
    assert (look.distance[~look.real] == 0).all()
    assert (look.distance[look.real] == len(as_set(every(rows)[0]))).all()


@keys
@pytest.mark.parametrize("probe", [None, 3])
@common
@given(rows=proposal)
def test_project_is_valid_idempotent_and_a_subset(key, probe, rows):
    b = Plain(key, probe if key != "pair" else None)
    p = every(rows)
    q = b.project(p)
    assert b.check(q).all() and torch.equal(b.project(q), q)
    for lane in range(N):
        assert as_set(q[lane]) <= as_set(p[lane])
        if by_hand(b, lane, rows)[1]:
            assert as_set(q[lane]) == as_set(p[lane]), "a valid set stays whole"


@keys
@common
@given(rows=proposal, seed=st.integers(0, 99))
def test_a_set_has_no_order(key, rows, seed):
    b = Plain(key)
    p = every(rows)
    shuffled = p[:, torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))]
    one, two = b.look(p), b.look(shuffled)
    assert torch.equal(one.real, two.real) and torch.equal(one.valid, two.valid)
    if one.real.all():
        assert torch.equal(one.form, two.form) and torch.equal(one.digest, two.digest)


@keys
@common
@given(one=st.lists(edits, max_size=ROWS), two=st.lists(edits, max_size=ROWS))
def test_digests_are_equal_exactly_when_forms_are(key, one, two):
    b = Plain(key)
    p, q = (b.project(every(e + [(-1, -1)] * (ROWS - len(e)))) for e in (one, two))
    a, c = b.look(p), b.look(q)
    same = (a.form == c.form).flatten(1).all(1)
    assert torch.equal(a.digest == c.digest, same)


@keys
@common
@given(first=st.lists(edits, max_size=3), edit=edits)
def test_compose_undoes_and_replaces(key, first, edit):
    b = Plain(key, limit=(3, 3, 3))
    p = b.project(every(first + [(-1, -1)] * (ROWS - len(first))))
    e = torch.tensor([edit]).expand(N, -1)
    once = b.compose(p, e)
    for lane in range(N):
        before, after = as_set(p[lane]), as_set(once[lane])
        held = {key_of(b, x): x for x in before}
        k = key_of(b, edit)
        if k not in held:
            assert after == before | {edit}
        elif held[k] == edit or key == "pair":
            assert after == before - {held[k]}
        else:
            assert after == (before - {held[k]}) | {edit} and len(after) == len(before)
    fresh = torch.tensor([key_of(b, edit) not in {key_of(b, x) for x in as_set(p[i])} for i in range(N)])
    twice = b.compose(once, e)
    for lane in range(N):
        if fresh[lane]:
            assert as_set(twice[lane]) == as_set(p[lane]), "the same edit again undoes it"


@keys
@common
@given(a=edits, c=edits, first=st.lists(edits, max_size=2))
def test_edits_of_different_keys_commute(key, a, c, first):
    b = Plain(key, limit=(4, 4, 4))
    if key_of(b, a) == key_of(b, c):
        return
    p = b.project(every(first + [(-1, -1)] * (ROWS - len(first))))
    x, y = (torch.tensor([e]).expand(N, -1) for e in (a, c))
    one, two = b.compose(b.compose(p, x), y), b.compose(b.compose(p, y), x)
    for lane in range(N):
        assert as_set(one[lane]) == as_set(two[lane])


@keys
def test_compose_leaves_full_sets_and_padding_alone(key):
    b = Plain(key, rows=2)
    cells = [(0, 1), (1, 2)]
    p = every(cells)
    assert torch.equal(b.compose(p, torch.tensor([[2, 3]] * N)), p)
    assert torch.equal(b.compose(p, torch.tensor([[-1, -1]] * N)), p)


@keys
def test_compose_writes_nothing(key):
    b = Plain(key)
    p = b.random(0)
    copy = p.clone()
    b.compose(p, torch.tensor([[0, 1]] * N))
    b.project(p)
    b.look(p)
    assert torch.equal(p, copy)


# -- masks -----------------------------------------------------------------------------------------------------------
@keys
@pytest.mark.parametrize("probe", [None, 3])
def test_masks_are_exact(key, probe):
    """Every open cell leads to a valid set, every closed one to none (or nowhere)."""
    b = Plain(key, probe if key != "pair" else None)
    for seed in range(6):
        p = b.random(seed) if seed else b.null()
        mask = edit_mask(b, p)
        sites = site_moves(b, p)
        for s in range(b.sites):
            choices = choice_moves(b, p, torch.full((N,), s))
            for c in range(b.choices):
                q = b.compose(p, torch.tensor([[s, c]]).expand(N, -1))
                moved = (q != p).flatten(1).any(1)
                assert torch.equal(mask[:, s, c], b.check(q) & moved), (seed, s, c)
                assert torch.equal(choices[:, c], mask[:, s, c])
            assert torch.equal(sites[:, s], mask[:, s].any(1))


@keys
@common
@given(u=st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)))
def test_sampled_edits_are_legal(key, u):
    b = Plain(key)
    edit = b.sample_edit(torch.tensor([u]).expand(N, -1))
    for lane in range(N):
        s, c = edit[lane].tolist()
        assert b.grid[lane, s, c]


def test_sampling_covers_the_mask_evenly():
    mask = torch.tensor([[False, True, True, False, True]])
    u = torch.linspace(0, 1, 3001)[:-1]
    found = _choose(mask.expand(3000, -1), u)
    assert found.unique().tolist() == [1, 2, 4]
    assert (found.bincount()[[1, 2, 4]] - 1000).abs().max() <= 2
    assert _choose(torch.zeros(2, 5, dtype=torch.bool), torch.tensor([0.0, 0.9])).tolist() == [-1, -1]


def test_a_lane_without_choices_gets_padding():
    b = Plain("site")
    b.grid[1] = False
    p = b.random(0)
    assert (p[1] == -1).all() and b.check(p).all()
    assert (b.sample_edit(torch.full((N, 2), 0.5))[1] == -1).all()


@keys
def test_random_is_valid_keyed_and_of_every_size(key):
    b = Plain(key, limit=(3, 3, 3))
    sizes = set()
    for seed in range(30):
        p = b.random(seed)
        assert b.check(p).all()
        sizes |= set((p[..., 0] >= 0).sum(1).tolist())
        rows = torch.tensor([2, 0])
        assert torch.equal(b.random(seed, rows), p[rows])
    assert {1, 2, 3} <= sizes


# -- storage ---------------------------------------------------------------------------------------------------------
@keys
@common
@given(rows=st.lists(edits, max_size=ROWS))
def test_dump_and_load_are_inverse(key, rows):
    b = Plain(key)
    form = b.look(b.project(every(rows + [(-1, -1)] * (ROWS - len(rows))))).form
    loaded = b.load([b.dump(form[i], i) for i in range(N)])
    assert torch.equal(b.look(loaded).form, form)


GARBAGE = [
    {}, [], "text", 7, True, {"edits": 3}, {"edits": [3]}, {"edits": ["ab"]}, {"edits": [[0]]}, {"edits": [[0.0, 1]]},
    {"edits": [["0", 1]]}, {"edits": [[0, 99]]}, {"edits": [[-1, 0]]}, {"edits": [[99, 0]]}, {"edits": [[0, None]]},
    {"edits": [[2**70, 0]]}, {"edits": [[0, 1]] * (ROWS + 1)}, {"edits": [[0, 1, "another word"]]}, {"field": "x"},
    {"edits": {"0": 1}}, {"edits": "ab"},
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_load_refuses_garbage(garbage):
    b = Plain("site")
    with pytest.raises(DataError):
        b.load([None, garbage, None])


def test_stored_edits_are_judged_not_believed():
    b = Plain("site", limit=(2, 2, 2))
    s, c = b.grid[1].nonzero()[0].tolist()
    hole = (~b.grid[1]).nonzero()[0].tolist()
    p = b.load([None, {"edits": [[s, c], [s, c]]}, None])
    assert not b.look(p).real[1]
    p = b.load([None, {"edits": [hole]}, None])
    assert not b.look(p).real[1]


def test_toy_edits_are_what_they_say():
    """The toy domain itself: the inputs are the clean sample with the named levels."""
    batch = toy.task("edits").samples("test", [3, 4])
    p = batch.random(0)
    x = batch.inputs(batch.look(p).form)
    for i in range(2):
        want = toy.samples()[[3, 4][i]].clone()
        for s, c in as_set(p[i]):
            want[s] = c / (toy.LEVELS - 1)
        assert torch.equal(x[i], want)
