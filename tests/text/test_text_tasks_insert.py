"""Insertions, deletions, merges and reductions: tables, texts, gradients."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym import make
from advgym.envs.text.goals.unchanged import KeepGoal
from advgym.envs.text.perturb.word_edits import cover, interleaved, packed
from advgym.errors import AdvgymError

sys.path.insert(0, str(Path(__file__).parent))
from tiny_tasks import SAMPLES, Linear, all_real, batch_of, own


# -- insertions, deletions, merges -----------------------------------------------------------------------------------
def test_slots_and_what_they_cover():
    assert interleaved(torch.tensor([[3, 4]])).tolist() == [[-1, 3, -1, 4, -1]]
    assert cover(5).tolist() == [[i, 5, 5] for i in range(5)] + [[1, 2, 3]]
    assert packed(torch.tensor([[2, -1, 5, 2, 7]]), 3).tolist() == [[2, 5, 7]]
    assert packed(torch.tensor([[2]]), 3).tolist() == [[2, -1, -1]]


def naive(b, lane, words, edits):
    """The text of a set of edits, by plain Python."""
    text = [w for word in words for w in ("", word)] + [""]
    gone = set()
    for site, choice in edits:
        slots = [k for k in b.cover[site].tolist() if k < b.wide]
        gone |= set(slots[1:])
        ids = b.segments[lane, site, choice].tolist()
        text[slots[0]] = b.lexicon.vocabulary.words[ids[0]] if ids[0] >= 0 else ""
    return " ".join(w for i, w in enumerate(text) if w and i not in gone)


@pytest.fixture(scope="module")
def inserting():
    return batch_of(own("insert", choices=3, edits=3, share=0.0))


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_sets_of_edits_are_texts_and_overlaps_are_none(inserting, data):
    b = inserting
    lane = data.draw(st.sampled_from([0, 1, 3, 4]))
    chosen = data.draw(st.lists(st.sampled_from(all_real(b, lane)), max_size=3, unique_by=lambda e: e[0]))
    p, rows = torch.full((1, b.rows_max, 2), -1), torch.tensor([lane])
    for e, edit in enumerate(chosen):
        p[0, e] = torch.tensor(edit)
    slots = [k for s, _ in chosen for k in b.cover[s].tolist() if k < b.wide]
    apart = len(set(slots)) == len(slots)
    look = b.look(p, rows)
    assert bool(look.real) == apart and bool(look.valid) == (apart and len(chosen) <= int(b.limit[lane]))
    assert look.distance.item() == (len(chosen) if apart else 0)
    words = SAMPLES[lane][0].split()
    if apart:
        said = naive(b, lane, words, chosen)
        assert b.inputs(look.form, rows).strings() == [said]
        line = [new if new is not None else old for old, new in b.pieces(lane, look.form[0])]
        assert " ".join(w for w in line if w) == said
        stored = [None] * 5
        stored[lane] = b.dump(look.form[0], lane)
        assert torch.equal(b.load(stored)[lane : lane + 1], look.form)
    kept = b.project(p, rows)
    assert b.check(kept, rows).all() and (not chosen or (kept >= 0).any())
    state = torch.full((1, b.rows_max, 2), -1)
    for edit in chosen:  # composing one after the other never leaves the domain
        state = b.compose(state, torch.tensor([edit]), rows)
        assert b.look(state, rows).real.all() and (state[0] == torch.tensor(edit)).all(1).any()


def test_the_table_has_what_the_operations_say(inserting):
    b, mask = inserting, inserting.mask()
    words = [None if i < 0 else b.lexicon.vocabulary.words[i] for i in b.clean[1, :, 0].tolist()]
    assert words[:7] == [None, "a", None, "fine", None, "film", None]
    assert mask[1, :7, 0].tolist() == [False, True, False, True, False, True, False]  # words are deleted, gaps not
    assert mask[1, [0, 2, 4, 6], 1:4].all() and not mask[1, 8:13].any()  # gaps up to the end of the text
    pair = b.wide + 1  # "fine film"
    merged = [b.payload(1, pair, c) for c in mask[1, pair].nonzero().squeeze(1).tolist()]
    assert merged == ["good", "movie", "nice"]
    assert not mask[2].any() and not mask[4, 1 + 2 * 4, 0]  # an empty text; the comma of "story , really"
    swaps = batch_of(own("insert", operations=["swap"])).mask()
    assert swaps.any() and not swaps[:, ::2].any(2)[:, :8].any() and not swaps[..., 0].any()
    put = batch_of(own("insert", insertions=["so"], operations=["insert"]))
    assert {put.payload(0, s, c) for s, c in put.mask()[0].nonzero().tolist()} == {"so"}
    for wrong, says in (
        ({"operations": []}, "at least one of swap"),
        ({"operations": ["swop"]}, "did you mean 'swap'"),
        ({"insertions": "words"}, "insertions is 'fillers'"),
        ({"insertions": ["two words"]}, "insertions is 'fillers'"),
        ({"insertions": "wordnet:nltk"}, "cannot fill gaps|needs WordNet"),
        ({"candidates": "vocabulary"}, "no table of insertions"),
    ):
        with pytest.raises(AdvgymError, match=says):
            own("insert", **wrong)


def test_relaxed_edits_and_gains_of_insertions(inserting):
    b = inserting
    model = Linear(b.lexicon.vocabulary)
    p = b.null()
    p[0, :3] = torch.tensor([[2, 1], [3, 0], [b.wide + 4, 1]])
    p[1, :2] = torch.tensor([[0, 2], [5, 1]])
    form = b.look(p).form
    assert b.look(p).real.all()
    ones = torch.ones(5, b.rows_max)
    assert torch.allclose(model(b.relaxed(form, ones)), model(b.inputs(form)), atol=1e-6)
    assert torch.allclose(model(b.relaxed(form, 0 * ones)), model(b.inputs(b.null())), atol=1e-6)
    w = (0.4 * ones).requires_grad_()
    model(b.relaxed(form, w))[:, 0].sum().backward()
    assert w.grad[0].ne(0).any() and w.grad[2].eq(0).all()
    # On a sum of words the estimate is exact for swaps, deletions, insertions between two words, and merges.
    x, leaves = b.leaves(form)
    score = model(x)[:, 1]
    assert torch.allclose(score, model(b.inputs(form))[:, 1], atol=1e-6)
    edits, gains = b.rank_by(form, list(torch.autograd.grad(score.sum(), leaves)), 400)
    for lane in (0, 1, 4):
        rows, seen = torch.tensor([lane]), 0
        for (s, c), gain in zip(edits[lane].tolist(), gains[lane].tolist(), strict=True):
            if s < 0:
                continue
            trial = b.compose(form[lane : lane + 1], torch.tensor([[s, c]]), rows)
            assert (trial >= 0).sum() == (form[lane] >= 0).sum() + 2  # nothing was replaced
            moved = (model(b.inputs(trial, rows))[0, 1] - score[lane]).item()
            present = b.inputs(form[lane : lane + 1], rows).ids[0] >= 0
            gap = s < b.wide and s % 2 == 0
            sides = sum(bool(present[k]) for k in (s - 1, s + 1) if 0 <= k < b.wide) if gap else 2
            assert gain == pytest.approx(moved * sides / 2, abs=1e-5), (lane, s, c)
            seen += 1
        assert seen > 5


# -- reduction -------------------------------------------------------------------------------------------------------
def test_a_reduction_counts_what_is_left():
    task = own("reduction", left=0.3)
    b = batch_of(task)
    assert isinstance(task.goal, KeepGoal) and task.threat.least and b.most.tolist() == [2, 1, 1, 1, 1]
    assert b.limit.tolist() == [6, 2, 0, 0, 4] and b.reach.tolist() == [7, 3, 1, 1, 5]  # the comma stays
    p = b.null()
    p[0, :5] = torch.tensor([[s, 0] for s in (0, 1, 2, 3, 4)])
    p[1, :2] = torch.tensor([[0, 0], [1, 0]])
    p[4, 0] = torch.tensor([4, 0])
    look = b.look(p)
    assert look.real.tolist() == [True, True, True, True, False] and look.distance.tolist() == [2, 1, 0, 1, 0]
    assert b.inputs(look.form).strings()[:2] == ["is awful", "film"]
    assert (b.cap(look.form)[:2] > 0).all() and (b.cap(b.null())[[0, 1, 4]] < 0).all()
    for seed in range(3):
        assert b.check(b.random(seed)).all()
    ref = task.goal.output(task.victim(b.inputs(b.null())))
    objective, surrogate = task.goal.judge(task.victim(b.inputs(look.form)), ref, None)
    assert objective[0] > 0 and objective[1] > 0 and (surrogate <= 0).all()
    for wrong in (-0.1, 1.5, "x", True):
        with pytest.raises(AdvgymError, match="left is a number from 0 to 1"):
            own("reduction", left=wrong)


def test_reductions_are_found_and_are_judged_by_both_conditions():
    task = own("reduction", left=0.3, queries=200)
    result = advgym.attack(task, "greedy", episodes=5, lanes=5)
    assert advgym.verify(result, task=task) == [] and {s.id for s in result.samples} <= {0, 1, 2, 3, 4}
    rows = {s.id: s for s in result.samples}
    assert rows[0].success and rows[1].success and rows[0].distance <= 2 and rows[1].distance == 1
    assert not rows[2].success and not rows[3].success  # nothing to take away
    b = batch_of(task)
    held = b.load([rows[i].perturbation if i in rows else None for i in range(5)])
    assert "awful" in b.inputs(b.look(held).form).strings()[0]
    env = make(task, 2)
    env.reset(options={"samples": [0, 1]})
    p = env.threat.null()
    p[0, 0] = torch.tensor([6, 0])  # "awful" goes, and with it the prediction
    p[1, 0] = torch.tensor([0, 0])  # kept, but two words are left
    obs, *_ = env.step(p)
    assert obs["valid"].all() and not obs["success"].any() and (obs["objective"] < 0).all()
