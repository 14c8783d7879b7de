import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advgym.core import rng
from advgym.envs.text.inputs.slots import make_randomise
from advgym.envs.text.inputs.vocabulary import Vocabulary, make_lexicon, neighbours, pad_rows
from advgym.envs.text.perturb.words import TextBatch
from advgym.errors import AdvgymError, DataError

GROUPS = {"film": ["movie", "flick", "show"], "movie": ["film"], "fine": ["good", "nice"], "odd": ["weird"]}
VOCAB = Vocabulary(sorted({"a", "is", "the", *GROUPS, *(w for g in GROUPS.values() for w in g)}))
NEAR = neighbours(VOCAB, GROUPS, 4)
LEXICON = make_lexicon(VOCAB, NEAR, 2)
TEXTS = ["the film is fine", "a movie", "odd", ""]
SITES = 5


def batch(slots=0, limit=2, texts=TEXTS):
    clean = pad_rows([VOCAB.encode(t.split()) for t in texts], SITES).unsqueeze(2)
    table = torch.cat([LEXICON.table, torch.full((1, 2), -1)])
    return TextBatch(
        torch.arange(len(texts)), torch.arange(len(texts)) % 2, clean, table[clean.squeeze(2)].unsqueeze(3),
        limit=torch.full((len(texts),), limit), rows_max=3, lexicon=LEXICON, slots=slots,
    )  # fmt: skip


def naive(b, lane, edits):
    """The text of a set of edits, by plain Python."""
    words = TEXTS[lane].split()
    for site, choice in edits:
        if site >= 0:
            options = GROUPS[words[site]][:2] if choice != b.probe else [""] * 3
            words[site] = options[min(choice, len(options) - 1)] if choice != b.probe else ""
    return " ".join(w for w in words if w)


def test_the_table_is_the_synonyms():
    b = batch()
    assert (b.choices, b.probe, b.slots, b.alphabet) == (3, 2, 0, 0)
    for lane, text in enumerate(TEXTS):
        for site in range(SITES):
            word = text.split()[site] if site < len(text.split()) else None
            want = GROUPS.get(word, [])[:2]
            have = [VOCAB.words[b.payloads[lane, site, c]] for c in range(3) if b.mask()[lane, site, c]]
            assert have == want
            assert bool(b.site_mask()[lane, site]) == bool(want)


def cells(b, lane):
    return [
        (s, c)
        for s in range(SITES)
        for c in range(b.choices)
        if b.legal(torch.tensor([[s]]), torch.tensor([[c]]), torch.tensor([lane]))[0, 0]
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_strings_equal_the_naive_swap_and_look_agrees(data):
    b = batch()
    lane = data.draw(st.integers(0, 3))
    able = cells(b, lane)
    chosen = data.draw(st.lists(st.sampled_from(able), max_size=3, unique_by=lambda e: e[0])) if able else []
    p = torch.full((1, 3, 2), -1)
    where = data.draw(st.permutations(range(3)))
    for at, edit in zip(where, chosen, strict=False):
        p[0, at] = torch.tensor(edit)
    rows = torch.tensor([lane])
    look = b.look(p, rows)
    assert look.real.all()
    probing = any(c == b.probe for _, c in chosen)
    assert bool(look.valid) == (len(chosen) <= 2 and not probing)
    assert bool(look.null) == (not chosen) and look.distance.item() == len(chosen)
    assert b.inputs(look.form, rows).strings() == [naive(b, lane, chosen)]
    assert b.inputs(p, rows).strings() == [naive(b, lane, chosen)]
    kept = b.project(p, rows)
    assert b.check(kept, rows).all()
    stored = [None] * 4
    stored[lane] = b.dump(look.form[0], lane)
    again = b.look(b.load(stored)[lane : lane + 1], rows)
    assert torch.equal(again.form, look.form) and again.digest == look.digest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, SITES + 2), st.integers(-3, 5)), min_size=3, max_size=3), st.integers(0, 3))
def test_anything_is_judged_and_can_be_projected(edits, lane):
    b, rows = batch(), torch.tensor([lane])
    p = torch.tensor([edits])
    look = b.look(p, rows)
    legal = set(cells(b, lane)) | {(-1, -1)}
    sites = [e[0] for e in edits if e != (-1, -1)]
    assert bool(look.real) == (all(e in legal for e in edits) and len(set(sites)) == len(sites))
    assert not (look.valid & ~look.real)
    assert b.check(b.project(p, rows), rows).all()


def test_probes_are_answered_but_never_count():
    b = batch()
    p = b.null()
    p[0, 0] = torch.tensor([1, b.probe])
    look = b.look(p)
    assert look.real.all() and look.valid.tolist() == [False, True, True, True]
    assert b.inputs(look.form).strings()[0] == "the is fine"
    assert not b.mask()[..., b.probe].any()
    p[2, 0] = torch.tensor([0, b.probe])  # the only word
    assert b.inputs(b.look(p).form).strings()[2] == ""


def test_words_are_appended_where_the_relation_allows():
    b = batch(slots=2)
    show, film, good = (VOCAB.index[w] for w in ("show", "film", "good"))
    ids = b.append(torch.tensor([[show], [film], [good], [show]]), torch.tensor([0, 1, 2, 0]))
    # "film" is a listed choice of "movie" too, but an appended word has an id of its own.
    assert ids.tolist() == [3, 3, 3, 3]
    assert b.append(torch.tensor([[good]]), torch.tensor([0])).item() == 4
    assert b.append(torch.tensor([[film]]), torch.tensor([0])).item() == -1  # full
    assert b.append(torch.tensor([[-5]]), torch.tensor([1])).item() == -1
    assert b.append(torch.tensor([[10**6]]), torch.tensor([1])).item() == -1
    p = b.null()
    p[0, 0] = torch.tensor([1, 3])  # film -> show: listed, beyond the two offered
    p[1, 0] = torch.tensor([1, 3])
    p[2, 0] = torch.tensor([0, 3])  # odd -> good: a real text outside the constraint
    look = b.look(p)
    assert look.real.all() and look.valid.tolist() == [True, True, False, True]
    assert b.inputs(look.form).strings()[:3] == ["the show is fine", "a film", "good"]
    assert b.mask()[0, 1, 3] and not b.mask()[2, 0, 3]
    p[3, 0] = torch.tensor([0, 4])
    assert b.look(p).real.tolist() == [True, True, True, False]
    # Stored with its word, and restored into a table that has not seen it.
    stored = [b.dump(look.form[i], i) for i in range(2)] + [None, None]
    assert stored[0] == {"edits": [[1, 3, "show"]]}
    fresh = batch(slots=2)
    form = fresh.look(fresh.load(stored)).form
    assert fresh.inputs(form).strings()[:2] == ["the show is fine", "a film"]
    with pytest.raises(DataError, match="no word of this task"):
        fresh.load([{"edits": [[1, 3, "zebra"]]}, None, None, None])
    with pytest.raises(AdvgymError, match="slots"):
        batch().append(torch.tensor([[1]]), torch.tensor([0]))


def test_a_table_stores_its_words_and_refuses_others():
    b = batch()
    with pytest.raises(DataError, match="another choice"):
        b.load([{"edits": [[1, 0, "flick"]]}, None, None, None])


def test_lanes_are_exchanged_whole():
    b, other = batch(slots=1), batch(slots=1, texts=["a film"])
    other.append(torch.tensor([[VOCAB.index["show"]]]), torch.tensor([0]))
    twin = b.put(torch.tensor([3]), other)
    assert twin.inputs(twin.null()).strings() == [*TEXTS[:3], "a film"]
    assert twin.mask()[3, 1, 3] and not b.mask()[3].any()


class Linear(nn.Module):
    """The sum of linear scores of words: first-order gains are exact."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(3)
        table = torch.randn(len(VOCAB) + 1, 4, generator=g)
        table[-1] = 0
        self.table, self.out = table, torch.randn(4, 2, generator=g)

    def forward(self, x):
        embedded, mask = x.embed(self.table, torch.arange(len(VOCAB) + 1))
        return (embedded * mask.unsqueeze(2)).sum(1) @ self.out


def test_rank_is_brute_force_on_a_linear_victim():
    b, model = batch(slots=1, limit=3), Linear()
    b.append(torch.tensor([[VOCAB.index["show"]]]), torch.tensor([0]))
    form = b.null()
    form[0, 0] = torch.tensor([3, 1])
    form = b.look(form).form
    x, leaves = b.leaves(form)
    score = model(x)[:, 1]
    assert torch.allclose(score, model(b.inputs(form))[:, 1], atol=1e-6)
    grads = list(torch.autograd.grad(score.sum(), leaves))
    edits, gains = b.rank_by(form, grads, 100)
    assert edits.shape == (4, 100, 2) and gains.shape == (4, 100)
    for lane in range(4):
        want = {}
        for s, c in cells(b, lane):
            if c == b.probe or not b.mask()[lane, s, c] or s in form[lane, :, 0].tolist():
                continue
            trial = b.compose(form[lane : lane + 1], torch.tensor([[s, c]]))
            want[(s, c)] = (model(b.inputs(trial, torch.tensor([lane])))[0, 1] - score[lane]).item()
        have = {tuple(e): g for e, g in zip(edits[lane].tolist(), gains[lane].tolist(), strict=True) if e[0] >= 0}
        assert have.keys() == want.keys()
        assert all(have[e] == pytest.approx(want[e], abs=1e-5) for e in want)
        assert gains[lane].diff().nan_to_num(0.0).le(1e-6).all()
    with pytest.raises(AdvgymError, match="no word embeddings"):
        b.rank_by(form, [None], 3)


def test_relaxed_edits_are_plain_ones_at_zero_and_one():
    b, model = batch(limit=3), Linear()
    form = b.null()
    form[0, :2] = torch.tensor([[1, 0], [3, b.probe]])
    form[1, 0] = torch.tensor([1, 0])
    form = b.look(form).form
    on, off = torch.ones(4, 3), torch.zeros(4, 3)
    assert torch.allclose(model(b.relaxed(form, on)), model(b.inputs(form)), atol=1e-6)
    assert torch.allclose(model(b.relaxed(form, off)), model(b.inputs(b.null())), atol=1e-6)
    w = torch.full((4, 3), 0.4, requires_grad=True)
    model(b.relaxed(form, w))[:, 0].sum().backward()
    assert w.grad[0, :2].ne(0).all() and w.grad[0, 2] == 0 and w.grad[3].eq(0).all()


def test_random_variations_see_the_input_alone_and_are_keyed():
    b = batch()
    vary = make_randomise(NEAR)
    x, keys = b.inputs(b.null()), torch.arange(4) + 7
    assert vary(x, 0.0, keys).strings() == TEXTS
    every = vary(x, 1.0, keys)
    assert torch.equal(every.ids, vary(x, 1.0, keys).ids)
    for old, new in zip(x.ids.flatten().tolist(), every.ids.flatten().tolist(), strict=True):
        row = NEAR[old][NEAR[old] >= 0].tolist() if old >= 0 else []
        assert new in row if row else new == old
    alone = vary(x.take(torch.tensor([2])), 1.0, keys[2:3])
    assert torch.equal(alone.ids, every.ids[2:3])
    # Of a relaxed text at weight 1 it is that of the plain one.
    p = b.look(b.random(1)).form
    plain, soft = vary(b.inputs(p), 0.7, keys), vary(b.relaxed(p, torch.ones(4, 3)), 0.7, keys)
    model = Linear()
    assert torch.allclose(model(plain), model(soft), atol=1e-6)
    many = vary(x.take(torch.zeros(400, dtype=torch.int64)), 0.3, rng.bits(0, torch.arange(400)))
    assert (many.ids[:, 1] != x.ids[0, 1]).float().mean().item() == pytest.approx(0.3, abs=0.07)


def test_view_is_flat_and_finite():
    view = batch(slots=1).view()
    assert view["words"].shape == (4, SITES) and view["site_features"].shape == (4, SITES, 3 + 2 * 2)
    assert view["site_features"].isfinite().all()
