"""Sentences and words at once: the table, the algebra of edits, texts and gradients against plain Python."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym import make_task
from advgym.clients.check import check_vector_env
from advgym.core.moves import edit_mask
from advgym.envs.text.inputs.vocabulary import Vocabulary, make_lexicon, neighbours, pad_rows
from advgym.envs.text.perturb.wordings import JointBatch
from advgym.envs.text.tasks.options import Budgets
from advgym.envs.text.tasks.paraphrasing import budget
from advgym.errors import AdvgymError, DataError
from advgym.leaderboards.boundary import mirror

GROUPS = {"film": ["movie", "flick"], "fine": ["good", "nice"], "odd": ["weird"], "it": []}
# Two texts of two sentences at most; the second text has one sentence with one paraphrase.
TEXTS = [
    [["the film is fine", "fine is the film", "a film so fine it is"], ["it is odd", "odd it is"]],
    [["odd film", "a film that is odd"]],
]
VOCAB = Vocabulary(
    sorted({w for t in TEXTS for s in t for x in s for w in x.split()} | {w for g in GROUPS.values() for w in g})
)
LEXICON = make_lexicon(VOCAB, neighbours(VOCAB, GROUPS, 2), 2)
S, V, G, W = 2, 3, 6, 2
ROWS = 6


def batch(budgets=((1, 2), (1, 1))):
    rows = []
    for text in TEXTS:
        for s in range(S):
            said = text[s] if s < len(text) else []
            rows += [VOCAB.encode(x.split()) for x in said] + [[]] * (V - len(said))
    wordings = pad_rows(rows, G).view(len(TEXTS), S, V, G)
    table = torch.cat([LEXICON.table, torch.full((1, W), -1)])
    return JointBatch(
        torch.arange(2), torch.arange(2), wordings, table[wordings], budgets=torch.tensor(budgets), rows_max=ROWS,
        lexicon=LEXICON,
    )  # fmt: skip


def cells(b, lane):
    """Legal edits, in plain Python, probes included."""
    out = []
    for s, said in enumerate(TEXTS[lane]):
        out += [(s, c) for c in range(len(said) - 1)] + ([(s, b.probe)] if len(said) > 1 else [])
        for v, wording in enumerate(said):
            for g, word in enumerate(wording.split()):
                many = len(GROUPS.get(word, []))
                out += [(S + (s * V + v) * G + g, w) for w in [*range(many), *([b.probe] if many else [])]]
    return out


def parts(site):
    return (site, None, None) if site < S else ((site - S) // (V * G), (site - S) // G % V, (site - S) % G)


def by_hand(b, lane, edits):
    """(text, valid) of a set of legal edits with sites of their own."""
    now = {s: c for s, c in edits if s < S}
    valid = b.probe not in [c for _, c in edits]
    out = []
    for s, said in enumerate(TEXTS[lane]):
        if now.get(s) == b.probe:
            words, version = [], -1
        else:
            version = now.get(s, -1) + 1
            words = said[version].split()
        for site, choice in edits:
            t, v, g = parts(site)
            if v is not None and t == s:
                if v != version:
                    valid = False
                elif choice == b.probe:
                    words[g] = ""
                else:
                    words[g] = GROUPS[said[v].split()[g]][choice]
        out += [w for w in words if w]
    sentences, words = len(now), len(edits) - len(now)
    fits = sentences <= b.budgets[lane, 0] and words <= b.budgets[lane, 1]
    return " ".join(out), valid and fits


def as_rows(edits):
    return torch.tensor([*edits, *[(-1, -1)] * (ROWS - len(edits))]).view(1, ROWS, 2)


legal = st.integers(0, 1).flatmap(
    lambda lane: st.tuples(
        st.just(lane), st.lists(st.sampled_from(cells(batch(), lane)), max_size=4, unique_by=lambda e: e[0])
    )
)


@settings(max_examples=150, deadline=None)
@given(legal, st.booleans())
def test_texts_validity_and_storage_agree_with_plain_python(case, turn):
    lane, edits = case
    b, rows = batch(), torch.tensor([lane])
    p = as_rows(edits[::-1] if turn else edits)
    look = b.look(p, rows)
    text, valid = by_hand(b, lane, edits)
    assert look.real.all() and bool(look.valid) == valid and look.distance.item() == len(edits)
    assert b.inputs(look.form, rows).strings() == [text] == b.inputs(p, rows).strings()
    stored = [None, None]
    stored[lane] = b.dump(look.form[0], lane)
    assert torch.equal(b.load(stored)[lane], look.form[0])
    kept = b.project(p, rows)
    assert b.check(kept, rows).all()
    chosen = {tuple(e) for e in kept[0].tolist()} - {(-1, -1)}
    assert chosen <= set(edits) and (chosen == set(edits)) == valid


number = st.one_of(st.integers(-2, S + S * V * G + 1), st.sampled_from([-(2**63), 2**63 - 1]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(number, st.one_of(st.integers(-2, 4), st.just(2**62))), min_size=ROWS, max_size=ROWS))
def test_anything_is_judged_and_can_be_projected(edits):
    b, rows = batch(), torch.tensor([0])
    p = torch.tensor([edits])
    able = {*cells(b, 0), (-1, -1)}
    sites = [e[0] for e in edits if e != (-1, -1)]
    real = all(e in able for e in edits) and len(set(sites)) == len(sites)
    look = b.look(p, rows)
    assert bool(look.real) == real and not bool(look.valid & ~look.real)
    assert b.check(b.project(p, rows), rows).all()
    b.compose(p, p[:, 0], rows)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_what_the_mask_shows_stays_valid(seed, data):
    """Every edit of the mask leads to a valid set that holds it, or, where it was held, to one without it."""
    b = batch()
    p = b.null() if data.draw(st.booleans()) else b.random(seed)
    assert b.check(p).all()
    mask = edit_mask(b, p)
    for lane in range(2):
        open_ = mask[lane].nonzero().tolist()
        assert open_
        edit = data.draw(st.sampled_from(open_))
        rows, e = torch.tensor([lane]), torch.tensor([edit])
        new = b.compose(p[lane : lane + 1], e, rows)
        assert b.check(new, rows).all()
        before, after = p[lane].tolist(), new[0].tolist()
        assert (edit in after) != (edit in before)
        again = b.compose(new, e, rows)
        assert edit not in again[0].tolist() or edit in before
        # What is not under the sentence that changed stays.
        other = [x for x in before if x[0] >= 0 and parts(x[0])[0] != parts(edit[0])[0]]
        assert all(x in after for x in other)


def test_the_mask_holds_every_edit_that_composes_to_a_valid_set():
    b = batch()
    for seed in range(20):
        p = b.random(seed)
        mask = edit_mask(b, p)
        for lane in range(2):
            rows = torch.tensor([lane])
            for edit in cells(b, lane):
                if edit[1] != b.probe:
                    fine = bool(b.check(b.compose(p[lane : lane + 1], torch.tensor([edit]), rows), rows))
                    assert bool(mask[lane, edit[0], edit[1]]) == fine, (p[lane].tolist(), edit)


def test_a_word_brings_its_wording_and_a_wording_takes_its_words():
    b, lane = batch(), torch.tensor([0])
    word = torch.tensor([[S + 2 * G + 1, 0]])  # "film" in the third wording of the first sentence
    p = b.compose(b.null()[:1], word, lane)
    assert b.inputs(p, lane).strings() == ["a movie so fine it is it is odd"]
    p = b.compose(p, torch.tensor([[0, 0]]), lane)
    assert b.inputs(p, lane).strings() == ["fine is the film it is odd"] and (p[..., 0] >= 0).sum() == 1
    clean = torch.tensor([[S + 3, 1]])  # "fine" of the clean wording
    p = b.compose(p, clean, lane)
    assert b.inputs(p, lane).strings() == ["the film is nice it is odd"] and (p[..., 0] >= 0).sum() == 1
    short = torch.full((1, 1, 2), -1)
    assert torch.equal(b.compose(short, word, lane), short)  # no row for the wording that it brings


def test_random_sets_are_valid_and_use_both_budgets():
    b = batch()
    draws = torch.cat([b.random(seed) for seed in range(200)])
    used = draws[..., 0] >= 0
    assert used.any(1).all()
    word = used & (draws[..., 0] >= S)
    assert {int(x) for x in (used & ~word).sum(1)} == {0, 1} and {int(x) for x in word.sum(1)} >= {0, 1, 2}
    keys = torch.tensor([7, 9, 11])
    assert torch.equal(b.random(1, torch.tensor([0, 1, 1]), keys)[1:], b.random(1, torch.tensor([1, 1]), keys[1:]))
    u = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    edits = b.sample_edit(u, torch.zeros(200, dtype=torch.int64))
    assert {tuple(e) for e in edits.tolist()} <= set(cells(b, 0)) and 60 < int((edits[:, 0] < S).sum()) < 140


def embed(x, table):
    vectors, _ = x.embed(table, torch.arange(len(table)))
    return (vectors.sum(1) ** 2).sum(1)


def test_relaxed_edits_are_the_texts_at_0_and_1_and_gains_are_their_slopes():
    b = batch()
    table = torch.randn(len(VOCAB) + 1, 4, generator=torch.Generator().manual_seed(1))
    table[-1] = 0
    form = as_rows([(0, 1), (S + 2 * G + 1, 0)])
    lane = torch.tensor([0])
    for w in ([1.0, 1.0], [1.0, 0.0], [0.0, 0.0]):
        weights = torch.tensor([[*w, 0, 0, 0, 0]])
        edits = [e for e, x in zip(form[0, :2].tolist(), w, strict=True) if x]
        plain = b.inputs(as_rows(edits), lane)
        torch.testing.assert_close(embed(b.relaxed(form, weights, lane), table), embed(plain, table))
    x, leaves = b.leaves(form, lane)
    grads = torch.autograd.grad(embed(x, table).sum(), leaves)
    edits, gains = b.rank_by(form, list(grads), 30, lane)
    assert gains[0].isfinite().sum() > 2
    for edit, gain in zip(edits[0].tolist(), gains[0].tolist(), strict=True):
        if edit[0] < 0:
            continue
        assert tuple(edit) in cells(b, 0)
        base = [e for e in form[0, :2].tolist() if parts(e[0])[0] != parts(edit[0])[0] or edit[0] >= S]
        if edit[0] < S:  # from the wording as it is, which `relaxed` cannot say beside a new one: slots one by one
            continue
        weights = torch.tensor([[*[1.0] * len(base), 0.0, *[0.0] * (ROWS - 1 - len(base))]], requires_grad=True)
        out = embed(b.relaxed(as_rows([*base, edit]), weights, lane), table).sum()
        slope = torch.autograd.grad(out, weights)[0][0, len(base)]
        torch.testing.assert_close(slope.item(), gain, rtol=1e-4, atol=1e-4)
    # A sentence's gain at the clean text is its relaxed slope.
    x, leaves = b.leaves(b.null()[:1], lane)
    found, gains = b.rank_by(b.null()[:1], list(torch.autograd.grad(embed(x, table).sum(), leaves)), 40, lane)
    for edit, gain in zip(found[0].tolist(), gains[0].tolist(), strict=True):
        if 0 <= edit[0] < S:
            weights = torch.zeros(1, ROWS, requires_grad=True)
            out = embed(b.relaxed(as_rows([edit]), weights, lane), table).sum()
            torch.testing.assert_close(torch.autograd.grad(out, weights)[0][0, 0].item(), gain, rtol=1e-4, atol=1e-4)


def test_rank_proposes_only_what_the_budgets_allow():
    b = batch()
    p = torch.cat([as_rows([(0, 1), (S + 2 * G + 1, 0)]), as_rows([(0, 0)])])
    for form in (b.null(), p):
        _, leaves = b.leaves(form)
        edits, gains = b.rank_by(form, [torch.rand_like(x) for x in leaves], 60)
        for lane in range(2):
            for edit, gain in zip(edits[lane], gains[lane], strict=True):
                if gain.isfinite():
                    new = b.compose(form[lane : lane + 1], edit.view(1, 2), torch.tensor([lane]))
                    assert b.check(new, torch.tensor([lane])).all() and not (form[lane, :, 0] == edit[0]).any()


def test_without_a_budget_its_cells_are_gone():
    assert make_task("text/synth-paraphrase").samples("test", [0, 1]).sites == 5  # words = 0
    words = make_task("text/synth-joint", sentences=0).samples("test", [0, 1])
    sites = words.site_mask().nonzero()[:, 1]
    _, _, version, _ = words.parts(sites)
    assert (sites >= words.sentences).all() and (version == 0).all()
    for name in ("view", "random"):
        assert getattr(words, name)(*([0] if name == "random" else [])) is not None
    with pytest.raises(AdvgymError, match="nothing to attack"):
        make_task("text/synth-joint", sentences=0, words=0)


def test_budgets_are_counts_or_shares():
    many, of = torch.tensor([0, 3, 12, 30]), lambda value: Budgets(sentences=0, words=value)
    assert budget(of(0.1), "words", many).tolist() == [0, 1, 1, 3]
    assert budget(of("4"), "words", many).tolist() == [0, 3, 4, 4]
    assert budget(of(0), "words", many).tolist() == [0, 0, 0, 0]
    for bad in (-1, 1.5, "x", None, True, float("nan"), float("inf")):
        with pytest.raises(AdvgymError, match="count"):
            budget(of(bad), "words", many)


@pytest.mark.parametrize("name", ["text/synth-joint", "text/synth-paraphrase"])
def test_the_contract_holds(name):
    check_vector_env(partial(advgym.make, name), lanes=2)


def test_a_batch_crosses_the_boundary_and_is_exchanged_row_by_row():
    task = make_task("text/synth-joint")
    b = task.samples("test", [4, 0, 9])
    twin = mirror.unpack(mirror.pack(b))
    p = b.random(2)
    assert torch.equal(twin.random(2), p) and torch.equal(twin.look(p).digest, b.look(p).digest)
    assert b.view()["site_features"].isfinite().all() and b.view().keys() == twin.view().keys()
    mixed = b.put(torch.tensor([1]), task.samples("train", [3]))
    other = task.samples("train", [3])
    assert mixed.inputs(mixed.null()).strings()[1] == other.inputs(other.null()).strings()[0]
    assert torch.equal(b.payloads[0, 0, 0], b.wordings[0, 0, 1])
    bad = b.dump(b.look(p).form[0], 0)
    bad["edits"][0][2] = "another word"
    with pytest.raises(DataError, match="another choice"):
        b.load([bad, None, None])
