"""A text that nobody edits is shown byte for byte, an edit changes its own span, and files say the same as lists."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch

import advgym
from advgym.core.task import make_task
from advgym.envs.text.victims import hub
from advgym.errors import DataError
from advgym.judge import results

sys.path.insert(0, str(Path(__file__).parents[1] / "text"))
import tiny_hub

GROUPS = {"fine": ["good", "unforgettable"], "awful": ["terrible"], "film": ["movie"], "plot": ["script"],
          "café": ["bar"], "dull": ["boring"]}  # fmt: skip
ODD = [
    "a fine\nfilm", "a\tfine \t film", "  a fine  film  ", "\n\na fine film\r\n", "a fine \u241e film",
    "a\u00a0fine\u00a0film", "a fine \U0001f469\u200d\U0001f4bb film", "a fine film\r\nawful\rplot",
    "cafe\u0301 fine film",
    "a fine film\u2028awful", "\ufeffa fine film", "a fine\x1ffilm", "\u3000fine\u3000film ", "a fine\x00 film",
    "   ", "", "one", " \ufffd fine", "a  fine   film    dull     plot",
]  # fmt: skip
SAMPLES = [(t, i % 2) for i, t in enumerate(ODD)]
TASKS = ["wordswap", "charswap", "homoglyph", "insert", "reduction", "paraphrase", "trigger"]


def victim(texts):
    return [[float("awful" in t or "terrible" in t), 0.5] for t in texts]


def own(name, samples=SAMPLES, model=victim, **options):
    if name != "trigger":
        options = {"antonyms": False, **options} if name != "reduction" else options
    if name in ("wordswap", "insert", "paraphrase", "trigger"):
        options = {"candidates": GROUPS, **options}
    return make_task(f"text/{name}", victim=model, samples=samples, **options)


def shown(task, form=None, rows=None):
    ids = list(range(task.sizes["test"])) if rows is None else rows
    batch = task.samples("test", ids)
    return batch, batch.inputs(batch.null() if form is None else form).strings()


@pytest.mark.parametrize("name", [t for t in TASKS if t != "trigger"])
def test_an_untouched_text_is_shown_as_it_is(name):
    task = own(name)
    assert shown(task)[1] == ODD
    seen = []
    spy = own(name, model=lambda texts: seen.extend(texts) or victim(texts))
    advgym.attack(spy, "random-search", episodes=len(ODD), lanes=4)
    assert set(ODD) <= set(seen)


def spans(old, new):
    """What two texts do not share between their ends."""
    head = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return old[head : len(old) - tail], new[head : len(new) - tail]


def test_an_edit_changes_its_own_span_alone():
    for name in ("wordswap", "insert", "reduction"):
        task = own(name)
        batch, clean = shown(task)
        for lane, site in batch.site_mask().nonzero().tolist():
            for choice in (
                batch.choice_mask(torch.tensor([site]), torch.tensor([lane]))[0].nonzero().squeeze(1).tolist()
            ):
                form = batch.null()
                form[lane, 0] = torch.tensor([site, choice])
                new = batch.inputs(batch.look(form).form).strings()
                assert [a for i, a in enumerate(new) if i != lane] == [a for i, a in enumerate(clean) if i != lane]
                gone, come = spans(clean[lane], new[lane])
                word = batch.payload(lane, site, choice)
                assert (len(gone.split()) <= 2 + (name == "insert") and come.strip() in f" {word} ") or word in new[
                    lane
                ]
                if name == "wordswap" and choice < batch.first:
                    old = [w for w in ODD[lane].split() if w in GROUPS or w.lower() in GROUPS or "caf" in w]
                    assert any(new[lane] == ODD[lane].replace(o, word, 1) for o in old), (ODD[lane], new[lane])


@pytest.mark.parametrize("deleted", [0, 1, 2])
def test_a_deletion_takes_the_gap_before_it(deleted):
    task = own("reduction", [("  one\ttwo \nthree\r\n", 0), ("other text", 1)])
    batch = task.samples("test", [0])
    form = batch.null()
    form[0, 0] = torch.tensor([deleted, 0])
    want = ["  two \nthree\r\n", "  one \nthree\r\n", "  one\ttwo\r\n"][deleted]
    assert batch.inputs(form).strings() == [want]


def test_an_insertion_brings_one_blank():
    task = own("insert", [("  one\ttwo\r\n", 0)], insertions=["really"], operations=["insert"], edits=3)
    batch = task.samples("test", [0])
    said = []
    for site in batch.site_mask()[0].nonzero().squeeze(1).tolist():
        form = batch.null()
        form[0, 0] = torch.tensor([site, 1])
        said += batch.inputs(form).strings()
    assert said == ["  really one\ttwo\r\n", "  one really\ttwo\r\n", "  one\ttwo really\r\n"]


def test_pairs_keep_both_texts():
    pairs = [
        (("a fine\nfilm ", " a fine\tplot\n"), 0),
        (("", "  "), 1),
        ((" \u241e", "fine film"), 0),
        (("fine", ""), 1),
    ]
    for attacked in (1, 2):
        seen = []

        def answer(texts, seen=seen):
            seen.extend(texts)
            return [[1.0, 0.0]] * len(texts)

        for name in ("wordswap", "insert"):
            task = own(name, pairs, answer, attacked=attacked)
            batch = task.samples("test", [0, 1, 2, 3])
            seen.clear()
            task.victim(batch.inputs(batch.null()))
            assert seen == [t for t, _ in pairs]
            seen.clear()
            form = batch.look(batch.random(3)).form
            task.victim(batch.inputs(form))
            assert [t[2 - attacked] for t in seen] == [t[2 - attacked] for (t, _) in pairs]
    task = own("insert", pairs, answer, attacked=2, insertions=["so"], operations=["insert"])
    batch, lane = task.samples("test", [0]), 0
    said = set()
    for site in batch.site_mask()[lane].nonzero().squeeze(1).tolist():
        form = batch.null()
        form[0, 0] = torch.tensor([site, 1])
        seen.clear()
        task.victim(batch.inputs(form))
        said.add(seen[0][1])
    assert said == {" so a fine\tplot\n", " a so fine\tplot\n", " a fine so\tplot\n", " a fine\tplot so\n"}


# -- from lists and from files ---------------------------------------------------------------------------------------
BAD = [("a \ud800 film", r"character 2 of .* is half a character \(U\+D800\)"), ("a\ufdd0b", r"character 1 .*U\+FDD0"),
       (None, "missing"), (3, "3"), (["a", "b", "c"], "")]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), BAD)
def test_refused_alike(text, says, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a film", "label": 0}\n' + json.dumps({"text": text, "label": 1}) + "\n")
    with pytest.raises(DataError, match=rf"sample 1.*{says}"):
        own("wordswap", [("a film", 0), (text, 1)])
    with pytest.raises(DataError, match=rf"a\.jsonl, line 2: .*{says}"):
        make_task("text/wordswap", victim=victim, dataset=str(path), candidates=GROUPS)


def test_kept_alike(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in SAMPLES))
    tasks = [own("wordswap"), make_task("text/wordswap", victim=victim, dataset=str(path), candidates=GROUPS)]
    assert shown(tasks[0])[1] == shown(tasks[1])[1] == ODD
    assert "2 text(s) hold no words (first: sample 14)" in caplog.text
    assert "2 text(s) hold no words (first: " in caplog.text and "a.jsonl, line 15" in caplog.text


@pytest.mark.parametrize("name", ["wordswap", "insert", "homoglyph", "paraphrase"])
def test_result_files_round_trip(name, tmp_path):
    task = own(name, [(t, 1) for t in ODD[:-8]])
    result = advgym.attack(task, "random-search", episodes=20, out=str(tmp_path / "r.json"))
    read = results.load(str(tmp_path / "r.json"))
    assert read.samples == result.samples and advgym.verify(str(tmp_path / "r.json"), task=task) == []


def test_files_alone_are_verified(tmp_path):
    """A data set by its path and a model by its folder: the file says all, with every odd character in it."""
    folder = tiny_hub.bert(tmp_path / "hub")
    path, out = tmp_path / "odd.jsonl", str(tmp_path / "r.json")
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in SAMPLES))
    table = tmp_path / "table.json"
    table.write_text(json.dumps(GROUPS))
    result = advgym.attack("text/wordswap", "greedy", victim=f"transformers:{folder}", dataset=str(path), out=out,
                           candidates=str(table), share=1.0)  # fmt: skip
    assert result.attacked > 0 and advgym.verify(out) == []
    assert results.load(out).victim["name"] == f"transformers:{folder}"


def test_pairs_are_shown_apart():
    task = own("wordswap", [(("a fine film", "so awful"), 0)], lambda t: [[1, 0]] * len(t))
    batch = task.samples("test", [0])
    assert task.line(batch, 0, batch.null()[0]) == "a fine film |  so awful"


def test_hub_models_read_every_gap(tmp_path):
    """Byte-level tokens tell a tab from a blank: words, whole texts and embeddings give the same scores."""
    for kind in ("roberta", "bert"):
        victim_ = hub.load(getattr(tiny_hub, kind)(tmp_path / kind))
        texts = [t for t in ODD if len(t.split()) < 6]
        random.Random(0).shuffle(texts)
        task = own("wordswap", [(t, 0) for t in texts], victim_, stopwords=False, share=1.0)
        batch = task.samples("test", list(range(len(texts))))
        form = batch.look(batch.random(1)).form
        ones = torch.ones(form.shape[:2])
        for x, soft in ((batch.inputs(batch.null()), 0 * ones), (batch.inputs(form), ones)):
            want = torch.cat([victim_([t]) for t in x.strings()])
            assert torch.allclose(victim_(x), want, atol=1e-5)
            assert torch.allclose(victim_(batch.relaxed(form, soft)), want, atol=1e-5)
