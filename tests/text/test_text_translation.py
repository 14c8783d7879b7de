import gzip

import pytest
import torch
import torch.nn.functional as F

import advgym
from advgym.core.task import make_task
from advgym.envs.text.data import captions
from advgym.envs.text.inputs.slots import TextInput, as_text
from advgym.envs.text.inputs.vocabulary import Vocabulary
from advgym.envs.text.models.translators import Gru, Transformer
from advgym.envs.text.tasks import translating
from advgym.envs.text.tasks.sequences import common_phrases, often
from advgym.envs.text.victims import recipes
from advgym.errors import AdvgymError, DataError

WORDS = Vocabulary([f"w{i}" for i in range(9)])
TOKENS, T = 11, 7
BUILDS = (Gru, Transformer)


def made(build, **more):
    torch.manual_seed(0)
    return build(WORDS, TOKENS, T, width=16, drop=0.0, **more).eval().requires_grad_(False)


@pytest.mark.parametrize("build", BUILDS)
def test_a_step_at_a_time_is_all_at_once(build):
    model = made(build)
    mask = torch.arange(6) < torch.tensor([[6], [3], [1], [0]])
    embedded = torch.randn(4, 6, 16) * mask.unsqueeze(2)
    memory = model.encode(embedded, mask)
    tokens = torch.randint(0, TOKENS, (4, T))
    before = model.shifted(tokens)
    whole, state = model.decode(memory, mask, before), model.begin(memory, mask)
    for t in range(T):
        logits, state = model.step(memory, mask, state, before[:, t])
        assert torch.allclose(logits, whole[:, t], atol=1e-5)


@pytest.mark.parametrize("build", BUILDS)
def test_scores_are_those_of_the_greedy_output_and_do_not_depend_on_neighbours(build):
    model = made(build)
    texts = ["w0 w1 w2", "w3", "", "w4 w5 w6 w7 w8 unknown w0"]
    scores = model(texts)
    assert scores.shape == (4, T, TOKENS)
    for i, text in enumerate(texts):
        assert torch.allclose(model([text])[0], scores[i], atol=1e-4)
    x = as_text(texts, WORDS)
    swap = x.ids.unsqueeze(2).clone()
    weight = torch.zeros(swap.shape, requires_grad=True)
    soft = model(TextInput(x.ids, x.vocabulary, swap, weight))
    assert torch.allclose(soft, scores, atol=1e-4)
    assert torch.autograd.grad(soft.sum(), weight)[0].isfinite().all()


@pytest.mark.parametrize("build", BUILDS)
def test_the_sampled_softmax_is_the_whole_one_in_the_limit_and_on_average(build):
    model = made(build)
    mask = torch.ones(3, 4, dtype=torch.bool)
    embedded = torch.randn(3, 4, 16)
    answer = torch.tensor([[1, 2, 0, -100], [3, 0, -100, -100], [4, -100, 5, 0]])
    before = model.shifted(answer.clamp_min(0))
    whole = F.cross_entropy(model.decode(model.encode(embedded, mask), mask, before)[answer >= 0], answer[answer >= 0])
    assert torch.allclose(model.sampled_loss(embedded, mask, before, answer, TOKENS), whole, atol=1e-5)
    drawn = torch.stack([model.sampled_loss(embedded, mask, before, answer, 3) for _ in range(120)])
    assert drawn.std() > 0 and drawn.mean() == pytest.approx(whole.item(), abs=0.08)


def test_batches_of_like_lengths_hold_every_sample_once():
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (1000,), generator=g)
    parts = recipes._buckets(torch.randperm(1000, generator=g), lengths, 8, g)
    assert sorted(torch.cat(parts).tolist()) == list(range(1000))
    spread = torch.tensor([float(lengths[p].max() - lengths[p].min()) for p in parts])
    assert spread.mean() < 4


# -- a tiny Multi30k -----------------------------------------------------------------------------------------
SUBJECTS = (("man", "mann"), ("dog", "hund"), ("boy", "junge"), ("child", "kind"))
VERBS = (("runs", "rennt"), ("sleeps", "schlaeft"), ("jumps", "springt"), ("eats", "isst"))
PLACES = (("park", "park"), ("street", "strasse"), ("house", "haus"))
GROUPS = {"man": ["dog", "guy"], "dog": ["hound", "boy"], "runs": ["jumps", "sprints"], "sleeps": ["eats"],
          "park": ["street"], "street": ["house"], "boy": ["child"], "jumps": ["runs"], "house": ["park"]}  # fmt: skip


def pairs():
    words = [(s, v, p) for s in SUBJECTS for v in VERBS for p in PLACES]
    return [(f"A {s} {v} in the {p}.", f"Ein {t} {w} im {q}.") for (s, t), (v, w), (p, q) in words]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "text" / "multi30k"
    folder.mkdir(parents=True)
    for split, rows in (("train", pairs() * 6), ("val", pairs()[::5]), ("test_2016_flickr", pairs()[::3])):
        for lang in (0, 1):
            with gzip.open(folder / f"{split}.{('en', 'de')[lang]}.gz", "wt", encoding="utf-8") as file:
                file.write("\n".join(r[lang] for r in rows) + "\n")
    monkeypatch.setenv("ADVGYM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path / "cache"))
    return folder


def test_a_translator_learns_and_its_task_has_four_goals(tiny, monkeypatch):
    monkeypatch.setattr(translating, "DRAWN", 8)
    victim = translating.translator("tiny", model="gru", epochs=10, lr=1e-2, batch=16, width=24, hidden=32, drop=0.0)
    assert victim.card["bleu_test"] > 60 and victim.card["train_cpu_seconds"] >= 0
    again = translating.translator("tiny", model="gru", epochs=10, lr=1e-2, batch=16, width=24, hidden=32, drop=0.0)
    assert again.card["bleu_test"] == victim.card["bleu_test"]  # from the cache
    for goal in ("untargeted", "keyword", "phrase", "bleu"):
        settings = {"victim": victim, "candidates": GROUPS, "goal": goal, "antonyms": False, "phrase": 1}
        task = make_task("text/multi30k-wordswap", **settings)
        b = task.samples("test", list(range(8)))
        x, leaves = b.leaves(b.null())
        scores = task.victim(x)
        ref = task.goal.output(scores)
        assert task.goal.right(scores, b.labels).all()
        target = task.goal.targets(0, b.ids, ref) if task.goal.needs_target else None
        objective, surrogate = task.goal.judge(scores, ref, target)
        assert (objective < 0).all()
        (gain,) = torch.autograd.grad(surrogate.sum(), leaves)
        assert gain.abs().sum() > 0
        if target is not None:
            words = {task.goal.words[t - 1] for t in target.flatten().tolist() if t > 0}
            assert words and not words & {"ein", "im", "."}
            for t, r in zip(target.tolist(), ref.tolist(), strict=True):
                assert not {i for i in t if i >= 0} & set(r)
    exact = make_task("text/multi30k-wordswap", victim=victim, candidates=GROUPS, antonyms=False, least_bleu=100)
    b = exact.samples("test", list(range(16)))
    right = exact.goal.right(exact.victim(b.inputs(b.null())), b.labels)
    found = captions.captions()
    said = translating.translate(victim.model, found.source["test"], found.words, found.vocabulary)
    assert right.tolist() == [s == " ".join(w) for s, w in zip(said, found.target["test"], strict=True)]
    env = advgym.make("text/multi30k-wordswap", lanes=2, victim=victim, candidates=GROUPS, queries=5,
                      knowledge="decision")  # fmt: skip
    env.reset(seed=0)
    while not env.done:
        env.step(env.threat.random(1))


def test_files_that_are_missing_or_broken_are_named(tiny, monkeypatch):
    with pytest.raises(AdvgymError, match="reads multi30k alone"):
        make_task("text/multi30k-wordswap", dataset="wmt")
    with pytest.raises(AdvgymError, match="text/seq2seq-wordswap takes yours"):
        make_task("text/multi30k-wordswap", samples=["a man"])
    with pytest.raises(AdvgymError, match="unknown model"):
        translating.translator("x", model="lstm")
    (tiny / "val.de.gz").write_bytes(b"no gzip")
    captions._captions.cache_clear()
    with pytest.raises(DataError, match=r"val\.de\.gz is not gzipped"):
        captions.captions()
    (tiny / "val.de.gz").unlink()
    with pytest.raises(DataError, match=r"cannot find .*val\.de\.gz.*ADVGYM_DATA"):
        captions.captions()
    with gzip.open(tiny / "val.de.gz", "wt") as file:
        file.write("ein\n")
    with pytest.raises(DataError, match="English and 1 German lines"):
        captions.captions()
    monkeypatch.delenv("ADVGYM_DATA")
    with pytest.raises(DataError, match="ADVGYM_DATA is not set"):
        captions.captions()


def test_words_of_captions_and_what_stands_often():
    assert captions.caption_words("A T-shirt, Bob's \u201cbig\u201d dog!") == [
        "a", "t-shirt", ",", "bob's", "\u201c", "big", "\u201d", "dog", "!"]  # fmt: skip
    rows = [[1, 2, 3], [1, 2, 2], [3, 1, 2], [4]]
    assert dict(often(rows, 3)) == {1: 3, 2: 3} and dict(often(rows, 4)) == {}
    assert common_phrases(rows, 2, {1, 2, 3}, 3).tolist() == [[1, 2]]
    assert common_phrases(rows, 2, {1}, 3).shape == (0, 2)


@pytest.mark.realdata
def test_the_captions_are_the_29000_pairs(data_dir):
    found = captions.captions()
    assert [len(found.source[s]) for s in ("train", "val", "test")] == [29000, 1014, 1000]
    assert found.words[:2] == (".", "ein") and found.counts[0] >= found.counts[1]
    assert found.target["test"][0] == ["ein", "mann", "mit", "einem", "orangefarbenen", "hut", ",", "der", "etwas",
                                       "anstarrt", "."]  # fmt: skip
