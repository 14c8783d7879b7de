"""Words of strangers' texts: their table entries, scripts without blanks, triggers and training data of one's own."""

import unicodedata

import pytest
import torch

import advgym
from advgym.agents.shared.beliefs import known_words
from advgym.agents.shared.slots import Slots
from advgym.core.task import make_task
from advgym.core.victim import Victim
from advgym.errors import AdvgymError, DataError

TABLE = {"good": ["fine"], "don't": ["never"], "café": ["bar"], "low-budget": ["cheap"], "budget": ["cost"],
         "film": ["movie"], "naïve": ["simple"], "well": ["finely"]}  # fmt: skip


def victim(texts):
    return [[float(len(t) % 2), 0.5] for t in texts]


def offered(text, table=TABLE, **options):
    """Word -> its substitutes in the table of choices."""
    task = make_task("text/wordswap", victim=victim, samples=[(text, 0)], candidates=table, antonyms=False,
                     stopwords=False, **options)  # fmt: skip
    batch = task.samples("test", [0])
    words = batch.lexicon.vocabulary.words
    out = {}
    for site in batch.site_mask()[0].nonzero().squeeze(1).tolist():
        choices = batch.choice_mask(torch.tensor([site]), torch.tensor([0]))[0, : batch.first].nonzero().squeeze(1)
        out[words[batch.clean[0, site, 0]]] = [words[batch.segments[0, site, c, 0]] for c in choices.tolist()]
    return out


@pytest.mark.parametrize(
    ("word", "want"),
    [
        ("good", ["fine"]), ("Good,", ["Fine,"]), ("#good", ["#fine"]), ("*good*", ["*fine*"]), ("‘good’", ["‘fine’"]),
        ("_good_", ["_fine_"]), ("“Good!”", ["“Fine!”"]), ("good…", ["fine…"]), ("good—", ["fine—"]),
        ("don't", ["never"]), ("don’t", ["never"]), ("Don’t", ["Never"]), ("donʼt", ["never"]),
        ("café", ["bar"]), (unicodedata.normalize("NFD", "café"), ["bar"]),
        (unicodedata.normalize("NFD", "Naïve."), ["Simple."]),
        ("low-budget", ["cheap"]), ("low‑budget", ["cheap"]), ("high-budget", ["high-cost"]),
        ("Well-budget", ["Finely-budget", "Well-cost"]), ("film's", ["movie's"]), ("film’s", ["movie’s"]),
        ("#Film", ["#Movie"]),
    ],
)  # fmt: skip
def test_words_find_their_entries(word, want):
    assert offered(f"a {word} thing") == {word: want}
    decomposed = {unicodedata.normalize("NFD", k): v for k, v in TABLE.items()}
    assert offered(f"a {word} thing", decomposed) == {word: want}


def test_stop_words_and_guards_see_through_dress(tmp_path):
    task = make_task("text/wordswap", victim=victim, samples=[("Don’t #good", 0)], candidates=TABLE,
                     stopwords=["don't"], antonyms={"good": ["fine"]})  # fmt: skip
    assert not task.samples("test", [0]).site_mask().any()


# -- no blanks -----------------------------------------------------------------------------------------------------
SCRIPTS = {
    "我喜欢这部电影，很好。": ({"好": ["棒"], "电影": ["影片"]}, "我喜欢这部电影，很棒。"),
    "とても良い映画です": ({"良": ["善"]}, "とても善い映画です"),
    "หนังดีมาก": ({"ดี": ["งาม"]}, "หนังงามมาก"),
    "我 喜欢iPhone 15！\n": ({"喜": ["爱"], "iphone": ["Nokia"]}, "我 爱欢iPhone 15！\n"),
}


@pytest.mark.parametrize("text", SCRIPTS)
def test_characters_are_words_where_there_are_no_blanks(text):
    table, want = SCRIPTS[text]
    seen = []

    def model(texts):
        seen.extend(texts)
        return [[0.5, float(t == want)] for t in texts]

    result = advgym.attack("text/wordswap", "greedy", victim=model, samples=[(text, 0)], candidates=table,
                           splitter="characters", antonyms=False, stopwords=False, share=1.0)  # fmt: skip
    assert result.success_rate == 1.0 and text in seen
    blanks = make_task("text/wordswap", victim=model, samples=[(text, 0)], candidates=table, antonyms=False)
    assert not blanks.samples("test", [0]).site_mask().any() or "iPhone" in text


def test_a_splitter_of_ones_own():
    def pairs(text):
        return [text[i : i + 2] for i in range(0, len(text), 2)]

    options = {"candidates": {"电影": ["影片"], "很好": ["不错"]}, "antonyms": False, "splitter": pairs}
    task = make_task("text/wordswap", victim=victim, samples=[("这部电影很好", 0)], **options)
    batch = task.samples("test", [0])
    form = batch.null()
    form[0, 0] = torch.tensor([1, 0])
    assert batch.inputs(form).strings() == ["这部影片很好"] and task.threat.constraint["splitter"] == "pairs"
    grown = make_task("text/insert", victim=victim, samples=[("这部电影很好", 0)], insertions=["真"], **options)
    batch = grown.samples("test", [0])
    form = batch.null()
    form[0, 0] = torch.tensor([2, 1])
    assert batch.inputs(form).strings() == ["这部真电影很好"]
    with pytest.raises(DataError, match=r"sample 0: splitter= gives '好了', which does not stand in"):
        make_task("text/wordswap", victim=victim, samples=[("很好", 0)], **{**options, "splitter": lambda t: ["好了"]})
    with pytest.raises(AdvgymError, match="unknown splitter 'letters'"):
        make_task("text/wordswap", victim=victim, samples=[("很好", 0)], **{**options, "splitter": "letters"})


# -- triggers ------------------------------------------------------------------------------------------------------
REVIEWS = [(f"  a {w} film,\tnumber {i}\n", y) for i in range(8) for w, y in (("fine", 1), ("awful", 0))]


def counts(texts):
    return [[float(t.count("awful") + t.count("dull")), t.count("fine") + 0.5] for t in texts]


def test_triggers_before_ones_own_texts(tmp_path):
    options = {"victim": counts, "samples": REVIEWS, "texts": 4, "words": 2}
    task = make_task("text/trigger", candidates=["dull", "really"], **options)
    batch = task.samples("test", [0, 1])
    assert batch.inputs(batch.null()).strings()[:4] == [t for t, y in REVIEWS if y == 0][:4]
    form = batch.null()
    form[:, 0] = torch.tensor([0, 0])
    form[:, 1] = torch.tensor([1, 1])
    assert batch.inputs(form).strings()[0] == "  dull really a awful film,\tnumber 0\n"
    result = advgym.attack(
        "text/trigger", "greedy", candidates=["dull", "really"], out=str(tmp_path / "r.json"), **options
    )
    won = [s for s in result.samples if s.success]
    assert {s.id for s in won} == {1, 3} and advgym.verify(str(tmp_path / "r.json"), task=task) == []
    common = make_task("text/trigger", **options)
    assert "fine" in common.context["vocabulary"] and common.sizes["test"] == 4
    words = tmp_path / "w.txt"
    words.write_text("dull\nreally\n")
    assert make_task("text/trigger", candidates=str(words), **options).samples("test", [0]).payloads.shape[2] == 4
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f'"{t.strip()}",{"good" if y else "bad"}\n' for t, y in REVIEWS))
    named = Victim(counts, card={"classes": ["bad", "good"]})
    again = advgym.attack("text/trigger", "greedy", victim=named, dataset=str(path), texts=4, candidates=["dull"])
    assert again.clean_accuracy == 1.0 and again.success_rate == 0.5
    for change, says in (({"candidates": []}, "at least one word"), ({"candidates": ["two words"]}, "list of words"),
                         ({"texts": 99}, "ask for fewer"), ({"candidates": "/none"}, "No such file"),
                         ({"samples": [(("a", "b"), 1)]}, "not pairs")):  # fmt: skip
        with pytest.raises(AdvgymError, match=says):
            make_task("text/trigger", **{**options, **change})


# -- training data -------------------------------------------------------------------------------------------------
GROUPS = {"fine": ["good", "dull"], "awful": ["terrible", "good"], "film": ["movie"]}


@pytest.mark.parametrize("name", ["wordswap", "insert", "paraphrase", "trigger"])
def test_nothing_is_known_of_training_data_that_nobody_gave(name, tmp_path):
    options = {"victim": counts, "samples": REVIEWS, "candidates": GROUPS} | (
        {"texts": 4, "candidates": ["dull"]} if name == "trigger" else {}
    )
    task = make_task(f"text/{name}", **options)
    assert not task.context["frequency"].any()
    train = [("a good film", 1), ("a good movie", 1), ("terrible dull film", 0), ("dull, dull", 0)] * 4
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "".join(f'"{t}",{y}\n' for t, y in train))
    for given in (train, str(path)):
        told = make_task(f"text/{name}", train=given, **options)
        index = {w: i for i, w in enumerate(told.context["vocabulary"])}
        assert torch.expm1(told.context["frequency"][index["dull"]]) == pytest.approx(8, abs=1e-3)
        assert told.sizes["test"] == task.sizes["test"]
        batch = told.samples("train", [0])
        if name != "trigger":
            assert batch.inputs(batch.null()).strings() == ["a good film"] and told.sizes["train"] == 16
        lexicon = batch.lexicon
        assert lexicon.odds[index["dull"]] < -0.5 < 0.5 < lexicon.odds[index["good"]] or name == "trigger"


def test_a_prior_that_knows_nothing_is_no_prior():
    """additive on `samples=` plays as with prior=False: 8 points apart once, for attacked words counted as seen."""
    options = {"victim": counts, "samples": REVIEWS, "candidates": GROUPS, "antonyms": False, "share": 1.0}
    env = advgym.make("text/wordswap", lanes=8, knowledge="score", **options)
    obs, _ = env.reset(seed=0)
    slots = Slots(env, env.draws(0), 1024)
    hope, seen = known_words(obs, slots, 7.0)
    assert not hope.any() and bool((seen[slots.some] == 1).all())
    one, other = (
        advgym.attack("text/wordswap", "additive", settings={"prior": prior}, episodes=16, **options)
        for prior in (True, False)
    )
    assert [s.queries for s in one.samples] == [s.queries for s in other.samples]
    assert one.success_rate == other.success_rate > 0


def test_train_is_refused_where_it_would_not_be_read():
    for name in ("text/mr-wordswap", "text/synth-wordswap", "image/digits-linf"):
        with pytest.raises(AdvgymError, match="takes no train="):
            make_task(name, train=[("a", 0)])
    with pytest.raises(DataError, match="train 1: labels are"):
        make_task("text/wordswap", victim=counts, samples=REVIEWS, candidates=GROUPS, train=[("a", 0), ("b", 7)])
