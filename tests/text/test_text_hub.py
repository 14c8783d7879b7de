import logging
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import advgym
from advgym.core.kinds.sequences import margin
from advgym.core.task import make_task
from advgym.envs.text.inputs.slots import TextInput, as_text
from advgym.envs.text.inputs.spacing import PAIR
from advgym.envs.text.inputs.text_pairs import join_pair, split_pair
from advgym.envs.text.inputs.vocabulary import UNKNOWN, Vocabulary
from advgym.envs.text.victims import hub, hub_seq2seq
from advgym.errors import AdvgymError, DataError, VictimError

sys.path.insert(0, str(Path(__file__).parent))
import tiny_hub

SAMPLES = [
    ("A fine film with unforgettable acting , really .", 1), ("awful", 0), ("", 0), ("a zebra", 1),
    ("the plot is dull and the film is awful", 0),
]  # fmt: skip
GROUPS = {"fine": ["unforgettable", "good"], "awful": ["terrible"], "film": ["movie", "masterpiece"],
          "dull": ["boring", "zzz"], "man": ["zebra"], "awake": ["asleep"], "plot": ["script"]}  # fmt: skip
PAIRED = [(("A man sleeps", "nobody is awake tonight"), 1), (("awful", ""), 0), (("", "the film was fine"), 0),
          (("the plot is dull and the film is awful", "a fine film"), 2)]  # fmt: skip


def plain_logits(folder, texts):
    """The library's own answer, a text at a time."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    out = []
    for text in texts:
        parts = [[t] for t in text] if isinstance(text, tuple) else [[text]]
        out.append(found(**tokenizer(*parts, return_tensors="pt", truncation=True, max_length=40)).logits[0].detach())
    return torch.stack(out)


def batch_of(task, n):
    b = task.samples("test", list(range(n)))
    return b, b.look(b.random(3)).form


def on_edges(task, b, form):
    """Weights of 0 and 1 are exactly the plain texts."""
    with torch.no_grad():
        plain, hard = task.victim(b.inputs(b.null())), task.victim(b.inputs(form))
    ones = torch.ones(form.shape[:2])
    assert torch.allclose(task.victim(b.relaxed(form, ones)), hard, atol=1e-4)
    assert torch.allclose(task.victim(b.relaxed(form, 0 * ones)), plain, atol=1e-4)
    return plain, hard


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_words_give_the_scores_of_the_library(model, kind):
    folder = model(kind)
    victim = hub.load(folder, cap=30)  # several length buckets
    texts = [t for t, _ in SAMPLES]
    assert torch.allclose(victim(texts), plain_logits(folder, texts), atol=1e-5)
    task = make_task("text/wordswap", victim=victim, samples=SAMPLES, candidates=GROUPS, edits=3)
    assert task.threat.knowledge == "white-box"
    b, form = batch_of(task, 5)
    plain, hard = on_edges(task, b, form)
    assert torch.allclose(plain, plain_logits(folder, texts), atol=1e-5)
    assert torch.allclose(hard, plain_logits(folder, b.inputs(form).strings()), atol=1e-5)
    assert all(faithful for _, faithful in victim.model._tables.values())


def test_gradients_are_those_of_the_scores(model):
    task = make_task("text/wordswap", victim=hub.load(model("bert")), samples=SAMPLES, candidates=GROUPS, edits=3)
    b, _ = batch_of(task, 5)
    form = b.null()
    form[0, 0] = torch.tensor(b.mask()[0].nonzero()[0].tolist())
    x, (weight,) = b.leaves(b.null())
    (gain,) = torch.autograd.grad(task.victim(x)[0, 0], weight)
    at = [task.victim(b.relaxed(form, torch.full(form.shape[:2], w)))[0, 0].item() for w in (0.0, 1e-2)]
    # From a weight of zero the new word's further sub-tokens would appear: compare just above it.
    low, high = (torch.full(form.shape[:2], w, requires_grad=True) for w in (0.5, 0.51))
    mid = task.victim(b.relaxed(form, low))[0, 0]
    (slope,) = torch.autograd.grad(mid, low)
    assert (task.victim(b.relaxed(form, high))[0, 0] - mid).item() / 0.01 == pytest.approx(
        slope[0, 0].item(), rel=0.1, abs=0.05
    )
    assert gain[0].abs().sum() > 0 and len(set(at)) == 2
    edits, _ = b.rank_by(b.null(), [gain], 2)
    assert b.look(b.compose(b.null(), edits[:, 0])).real.all()


@pytest.mark.parametrize("attacked", [1, 2])
def test_pairs_edit_one_text_and_show_both(model, attacked):
    folder = model("bert", classes=3)
    task = make_task("text/wordswap", victim=f"transformers:{folder}", samples=PAIRED, candidates=GROUPS, edits=3,
                     attacked=attacked)  # fmt: skip
    assert task.victim.name == f"transformers:{folder}"
    b, form = batch_of(task, 4)
    plain, hard = on_edges(task, b, form)
    assert torch.allclose(plain, plain_logits(folder, [t for t, _ in PAIRED]), atol=1e-5)
    new = [split_pair(s) for s in b.inputs(form).strings()]
    assert torch.allclose(hard, plain_logits(folder, new), atol=1e-5)
    stays = 1 - (attacked - 1)
    assert [t[stays] for t in new] == [t[stays] for t, _ in PAIRED] and new != [t for t, _ in PAIRED]
    seen = []

    def answer(pairs):
        seen.extend(pairs)
        return [[1.0, 0.0, 0.0]] * len(pairs)

    own = make_task("text/wordswap", victim=answer, samples=PAIRED, candidates=GROUPS, attacked=attacked)
    b = own.samples("test", [0, 1])
    own.victim(b.inputs(b.null()))
    assert seen[-2:] == [t for t, _ in PAIRED[:2]]
    assert b.limit.tolist() == [1, 1]
    assert split_pair(join_pair("a b", "c", attacked).text()) == ("a b", "c")
    with pytest.raises(AdvgymError, match="attacked is 1 or 2"):
        make_task("text/wordswap", victim=answer, samples=PAIRED, candidates=GROUPS, attacked=3)


def test_long_texts_are_cut_once_with_a_word(model, caplog):
    folder = model("bert")
    victim = hub.load(folder)
    long = [" ".join(["film"] * 60), "a film"]
    with caplog.at_level(logging.WARNING):
        whole = victim(long)
        words = victim(as_text(long, Vocabulary(["a"])))
    assert torch.allclose(whole, plain_logits(folder, long), atol=1e-5) and torch.allclose(whole, words, atol=1e-5)
    assert caplog.text.count("are cut there") == 1 and victim.model.truncated == 2
    vocabulary = Vocabulary([UNKNOWN, f"{PAIR} " + "film " * 60, "film"])
    pair = victim(TextInput(torch.tensor([[2] * 60 + [1]]), vocabulary))
    assert pair.shape == (1, 2) and pair.isfinite().all()
    unknown = victim(TextInput(torch.tensor([[0, 2]]), vocabulary))
    assert torch.allclose(unknown, plain_logits(folder, ["[UNK] film"]), atol=1e-5)


def test_a_tokenizer_that_joins_words_is_asked_for_whole_texts(caplog, tmp_path):
    folder = tiny_hub.roberta(tmp_path / "joining", joins=True)
    texts = ["a fine film with a good plot", "the movie was awful"]
    x = as_text(texts, Vocabulary(["a"]))
    with caplog.at_level(logging.WARNING):
        victim = hub.load(folder)
        assert torch.allclose(victim(x), plain_logits(folder, texts), atol=1e-5)
    assert "joins words across spaces" in caplog.text
    task = make_task("text/wordswap", victim=victim, samples=SAMPLES, candidates=GROUPS)
    b, form = batch_of(task, 5)
    assert torch.allclose(task.victim(b.inputs(form)), plain_logits(folder, b.inputs(form).strings()), atol=1e-5)
    with pytest.raises(AdvgymError, match=r"at most .score..*joins words"):  # what cannot agree is refused
        make_task("text/wordswap", victim=victim, samples=SAMPLES, candidates=GROUPS, knowledge="white-box")


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_buckets_hold_every_row_once_and_keep_to_the_cap(lengths, cap):
    parts = list(hub.buckets(torch.tensor(lengths), cap))
    assert sorted(torch.cat(parts).tolist()) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[i] for i in part.tolist()) <= cap


def test_missing_models_say_what_is_needed(model, tmp_path):
    import transformers

    for source in ("some/model", "nobody-knows-it"):
        with pytest.raises(DataError, match=r"is no local folder.*save_pretrained wrote.*mr-tfidf"):
            hub.load(source)
    with pytest.raises(DataError, match=r"no config\.json"):
        hub.load(str(tmp_path))
    with pytest.raises(AdvgymError, match="transformers:VALUE"):
        make_task("text/wordswap", victim="transformers:", samples=SAMPLES)
    found = transformers.AutoModelForSequenceClassification.from_pretrained(model("bert"))
    torch.save(found.state_dict(), tmp_path / "pytorch_model.bin")
    found.config.save_pretrained(tmp_path)
    tiny_hub.wordpiece().save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"\.bin alone.*pickle"):
        hub.load(str(tmp_path))
    for wrong in (3, "a film", [1], [("a",)], {"a": 1}):
        with pytest.raises(AdvgymError, match="list of strings or of pairs"):
            hub.load(model("bert"))(wrong)


def test_the_environment_plays_it(model):
    env = advgym.make("text/wordswap", lanes=2, victim=hub.load(model("roberta")), samples=SAMPLES, candidates=GROUPS,
                      queries=4)  # fmt: skip
    env.reset(seed=0)
    while not env.done:
        obs, *_ = env.step(env.threat.random(1))
    assert obs["scores"].shape == (2, 3)


# -- seq2seq -------------------------------------------------------------------------------------------------
TEXTS = ["a fine film with a good plot", "awful", "the man sleeps on the couch tonight really", "", "a dull plot ."]


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_greedy_is_that_of_the_library_and_narrow_scores_keep_every_margin(model, kind):
    import transformers

    folder = model(kind)
    victim = hub_seq2seq.load(folder, length=9)
    writer = victim.model
    found = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    outputs = writer.outputs(TEXTS)
    skip = len(writer.prefix)
    for text, row in zip(TEXTS, outputs.tolist(), strict=True):
        said = found.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=8 + skip, num_beams=1,
                              do_sample=False)[0, skip:].tolist()  # fmt: skip
        said = said[: said.index(writer.ends[0])] if writer.ends[0] in said else said
        assert [t for t in row if t >= 0] == said
    keep = torch.unique(outputs[outputs >= 0])
    narrow = writer.narrowed(keep)
    wide, small = writer(TEXTS), narrow(TEXTS)
    assert small.shape == (len(TEXTS), 9, len(keep) + 2) and narrow.words[-1] == hub_seq2seq.REST
    place = torch.searchsorted(writer.keep, keep) + 1
    assert torch.equal(writer.keep[place - 1], keep)
    many = len(TEXTS)
    one = margin(wide, place.expand(many, 9, -1))
    two = margin(small, torch.arange(1, len(keep) + 1).expand(many, 9, -1))
    assert torch.allclose(one, two, atol=1e-4)


@pytest.mark.parametrize("goal", ["untargeted", "keyword", "phrase", "bleu"])
@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_own_seq2seq_tasks_are_white_box(model, kind, goal):
    victim = f"seq2seq:{model(kind)}" if goal == "bleu" else hub_seq2seq.load(model(kind), length=8)
    task = make_task("text/seq2seq-wordswap", victim=victim, samples=TEXTS, candidates=GROUPS, goal=goal,
                     words="film masterpiece")  # fmt: skip
    b, form = batch_of(task, 5)
    with torch.no_grad():
        clean = task.victim(b.inputs(b.null()))
    assert task.goal.right(clean, b.labels).all()
    on_edges(task, b, form)
    target = task.goal.parse_target([5]).expand(5, -1) if task.goal.needs_target else None
    x, leaves = b.leaves(b.null())
    objective, surrogate = task.goal.judge(task.victim(x), task.goal.output(clean), target)
    (gain,) = torch.autograd.grad(surrogate.sum(), leaves)
    assert objective.isfinite().all() and gain.isfinite().all() and gain.abs().sum() > 0


def test_seq2seq_says_what_it_needs(model):
    with pytest.raises(VictimError, match="seq2seq:/a/folder"):
        make_task("text/seq2seq-wordswap", victim=lambda t: t, samples=TEXTS)
    with pytest.raises(AdvgymError, match="no token of"):
        hub_seq2seq.load(model("t5"), first="deu_Latn")
    with pytest.raises(AdvgymError, match="list of sentences"):
        make_task("text/seq2seq-wordswap", victim=f"seq2seq:{model('t5')}", samples="a film")
    first = hub_seq2seq.load(model("t5"), first="<s>", length=4).model
    assert first.prefix == [0, 2] and first(["a film"]).shape[1] == 4
    with pytest.raises(DataError, match="some/translator"):
        hub_seq2seq.load("some/translator")
