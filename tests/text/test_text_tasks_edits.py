"""Probes and whole vocabularies; the contract, every knowledge, bad input and the GPU for all tasks of edits."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import advgym
from advgym import check_vector_env, make
from advgym.core.edits import Table
from advgym.core.task import make_task
from advgym.envs.text.inputs.slots import make_randomise
from advgym.envs.text.inputs.vocabulary import UNKNOWN
from advgym.errors import AdvgymError, DataError, Malformed
from advgym.leaderboards.boundary import mirror

sys.path.insert(0, str(Path(__file__).parent))
from tiny_tasks import NEW, SAMPLES, Linear, batch_of, own, victim


# -- probes ----------------------------------------------------------------------------------------------------------
def test_two_probes_ask_and_never_count():
    b = batch_of(own("wordswap"))
    table = Table(b)
    assert table.probe == b.probe == 8 and table.probes == {"deleted": 8, "unknown": 9}
    p = b.null()
    p[0, 0] = torch.tensor([4, 9])
    look = b.look(p)
    assert look.real.all() and look.valid.tolist() == [False, True, True, True, True]
    assert b.inputs(look.form).strings()[0] == f"the plot of this {UNKNOWN} is awful"
    assert not b.mask()[..., 8:].any() and b.project(p).eq(-1).all()
    assert b.dump(look.form[0], 0) == {"edits": [[4, 9, UNKNOWN]]}
    env = make(own("wordswap", probes=False), 5)
    env.reset(options={"samples": range(5)})
    obs, *_ = env.step(p)
    assert not obs["evaluated"][0]
    paraphrase = make_task("text/synth-paraphrase").samples("test", [0])
    assert "unknown" not in Table(paraphrase).probes


# -- the whole vocabulary --------------------------------------------------------------------------------------------
def test_every_word_may_stand_anywhere():
    task = own("wordswap", candidates="vocabulary", stopwords=["the"], share=1.0)
    b = batch_of(task)
    words = b.lexicon.vocabulary.words
    assert b.choices == len(words) + 2 and Table(b).probes == {"deleted": len(words), "unknown": len(words) + 1}
    mask = b.mask()
    assert not mask[0, 0].any() and not mask[4, 4].any()  # a stop word, a comma
    for lane, site in ((0, 4), (1, 1), (3, 0)):
        able = mask[lane, site].nonzero().squeeze(1).tolist()
        assert [words[c] for c in able] == [w for w in words if w not in (UNKNOWN, words[b.clean[lane, site, 0]])]
        assert torch.equal(b.choice_mask(torch.tensor([site]), torch.tensor([lane]))[0], mask[lane, site])
    for seed in range(3):
        p = b.random(seed)
        assert b.check(p).all()
        stored = [b.dump(f, i) for i, f in enumerate(b.look(p).form)]
        assert torch.equal(b.load(stored), b.look(p).form)
    with pytest.raises(DataError, match="another choice"):
        b.load([{"edits": [[4, 0, "film"]]}, *[None] * 4])


@pytest.mark.parametrize("tile", [2048, 3])
def test_ranking_a_vocabulary_in_tiles_is_brute_force(tile, monkeypatch):
    monkeypatch.setattr("advgym.envs.text.perturb.every_word.TILE", tile)
    b = batch_of(own("wordswap", candidates="vocabulary", share=1.0))
    model = Linear(b.lexicon.vocabulary)
    form = b.null()
    form[0, 0] = torch.tensor([1, 2])
    form = b.look(form).form
    x, leaves = b.leaves(form)
    score = model(x)[:, 1]
    assert torch.allclose(score, model(b.inputs(form))[:, 1], atol=1e-6)
    grads = list(torch.autograd.grad(score.sum(), leaves, allow_unused=True))
    edits, gains = b.rank_by(form, grads, 12)
    assert edits.shape == (5, 12, 2) and (edits[2] == -1).all()
    for lane in (0, 1, 3):
        rows, want = torch.tensor([lane]), []
        for s, c in b.mask()[lane].nonzero().tolist():
            if s not in form[lane, :, 0].tolist():
                trial = b.compose(form[lane : lane + 1], torch.tensor([[s, c]]), rows)
                want.append((model(b.inputs(trial, rows))[0, 1] - score[lane]).item())
        want = sorted(want, reverse=True)[:12]
        assert gains[lane][: len(want)].tolist() == pytest.approx(want, abs=1e-4)
        assert len({tuple(e) for e in edits[lane].tolist()}) == 12
        assert b.look(b.compose(form, edits[:, 0])).real.all()


def test_a_tap_goes_through_defenses():
    """Rows taken twice and words merged: the gains are those of the defended victim."""
    b = batch_of(own("wordswap", candidates="vocabulary", share=1.0))
    model, size = Linear(b.lexicon.vocabulary), len(b.lexicon.vocabulary)
    merge = torch.arange(size)
    merge[3] = 1

    def defended(x):
        twice = x.take(torch.arange(len(x)).repeat_interleave(2))
        return model(twice.replace(merge)).view(len(x), 2, 2).mean(1)

    x, leaves = b.leaves(b.null())
    score = defended(x)[:, 1]
    edits, gains = b.rank_by(b.null(), list(torch.autograd.grad(score.sum(), leaves, allow_unused=True)), 1)
    trial = b.compose(b.null(), edits[:, 0])
    moved = defended(b.inputs(trial))[:, 1] - score
    assert torch.allclose(moved[[0, 1, 3, 4]], gains[[0, 1, 3, 4], 0], atol=1e-4)
    varied = make_randomise(b.lexicon.near)(b.leaves(b.null())[0], 0.5, b.ids)
    assert varied.tap is not None
    x, leaves = b.leaves(b.null())
    with pytest.raises(AdvgymError, match="no gradient"):
        x.strings()
    with pytest.raises(AdvgymError, match="no word embeddings"):
        b.rank_by(b.null(), [None], 3)


# -- the contract, and every knowledge -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "knowledge"),
    [
        ("synth-charswap", "transfer"),
        ("synth-insert", "white-box"),
        ("synth-insert", "decision"),
        ("synth-reduction", "score"),
        ("synth-reduction", "white-box"),
    ],
)
def test_embedded_tasks_keep_the_contract(name, knowledge):
    check_vector_env(partial(make, f"text/{name}", knowledge=knowledge))


@pytest.mark.parametrize("name", ["wordswap", "homoglyph", "insert"])
def test_own_samples_keep_the_contract(name):
    more = {"candidates": "vocabulary"} if name == "wordswap" else {}
    check_vector_env(partial(make, f"text/{name}", victim="synth-bert", samples=SAMPLES[:2] + SAMPLES[4:], **more))


@pytest.mark.parametrize("name", ["wordswap", *NEW])
def test_every_knowledge_plays(name):
    words = {"candidates": "vocabulary", "share": 0.5} if name == "wordswap" else {}
    for knowledge, agent in (("white-box", "first-order"), ("score", "greedy"), ("decision", "decision-search"),
                             ("transfer", "transfer")):  # fmt: skip
        more = {"surrogate": "synth-bag"} if knowledge == "transfer" else {}
        task = make_task(
            f"text/{name}", victim="synth-bert", samples=SAMPLES, knowledge=knowledge, queries=40, **words, **more
        )
        result = advgym.attack(task, agent, episodes=5, lanes=5)
        assert result.attacked and not [f for f in result.flags if "crashed" in f], (knowledge, result.flags)
        assert advgym.verify(result, task=task) == []


@pytest.mark.parametrize("name", NEW)
def test_bad_input(name):
    for samples, error, says in (
        ([("a", 5)], DataError, "labels are 0 to 1, not 5"),
        ([("a",)], AdvgymError, "sample 0 is"),
        (None, AdvgymError, "pass samples="),
    ):
        with pytest.raises(error, match=says):
            make_task(f"text/{name}", victim=victim, samples=samples)
    empty = make_task(f"text/{name}", victim=victim, samples=[("", 1), ("  ", 1)]).samples("test", [0, 1])
    assert empty.inputs(empty.null()).strings() == ["", "  "] and empty.check(empty.random(0)).all()
    long = make_task(f"text/{name}", victim="synth-bert", samples=[("film " * 300, 1), ("a", 0)])
    b = long.samples("test", [0, 1])
    assert torch.isfinite(long.victim(b.inputs(b.look(b.random(1)).form))).all()
    env = make(long, 2)
    env.reset(options={"samples": [0, 1]})
    with pytest.raises(Malformed):
        env.step(torch.zeros(2, 3))
    with pytest.raises(AdvgymError, match=r"reads its own samples|generates its samples"):
        make_task(f"text/synth-{'charswap' if name == 'homoglyph' else name}", samples=SAMPLES)


@pytest.mark.parametrize("name", ["wordswap", "insert", "reduction"])
def test_a_mirrored_batch_does_the_same(name):
    words = {"candidates": "vocabulary"} if name == "wordswap" else {}
    batch = batch_of(own(name, **words))
    twin = mirror.unpack(mirror.pack(batch))
    p = batch.random(3)
    assert torch.equal(p, twin.random(3)) and torch.equal(batch.look(p).digest, twin.look(p).digest)
    assert torch.equal(batch.look(p).distance, twin.look(p).distance)
    edit = batch.sample_edit(torch.full((len(batch), 2), 0.3))
    assert torch.equal(batch.compose(p, edit), twin.compose(p, edit)) and Table(twin).probes == Table(batch).probes
    assert batch.inputs(twin.look(p).form).strings() == twin.inputs(batch.look(p).form).strings()
    swapped = batch.put(torch.tensor([2]), task_of_one(name, words))
    assert swapped.inputs(swapped.null()).strings()[2] == SAMPLES[0][0]


def task_of_one(name, words):
    return own(name, **words).samples("test", [0])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["wordswap", *NEW])
def test_the_same_on_a_gpu(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    words = {"candidates": "vocabulary", "share": 0.5} if name == "wordswap" else {}
    task = make_task(f"text/{name}", victim="synth-bert", samples=SAMPLES, **words)
    here, there = task.samples("test", list(range(5))), task.samples("test", list(range(5)), "cuda")
    p = here.random(1)
    assert torch.equal(there.random(1).cpu(), p)
    a, b = here.look(p), there.look(p.cuda())
    assert torch.equal(a.form, b.form.cpu()) and torch.equal(a.valid, b.valid.cpu())
    assert here.inputs(a.form).strings() == there.inputs(b.form).strings()
    for agent in ("first-order", "greedy"):
        result = advgym.attack(task, agent, episodes=5, lanes=5, device="cuda")
        assert result.attacked and not [f for f in result.flags if "crashed" in f], result.flags
    task.victim.to("cpu")
