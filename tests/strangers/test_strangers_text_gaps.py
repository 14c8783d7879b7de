"""What stands before a word when the first one is deleted, and texts with many kinds of gaps."""

import sys
from pathlib import Path

import pytest
import torch

import advgym
from advgym.core.task import make_task
from advgym.envs.text.inputs.pieces import FORMS
from advgym.envs.text.victims import hub
from advgym.errors import AdvgymError

sys.path.insert(0, str(Path(__file__).parents[1] / "text"))
sys.path.insert(0, str(Path(__file__).parent))
import tiny_hub
from test_strangers_text_models import alone, made

TEXTS = ["The fine film was dull", "  awful \tplot\n", "\tgood acting saves  a script", "man sleeps", "a  b c"]
GROUPS = {"fine": ["unforgettable", "good"], "film": ["movie", "masterpiece"], "dull": ["boring"]}


def written(text, first):
    """What somebody writes who deletes the first words: the lead stays, and the next word stands in their place."""
    lead = text[: len(text) - len(text.lstrip())]
    rest = text[len(lead) :]
    for _ in range(first):
        rest = rest[len(rest.split()[0]) :].lstrip() if len(rest.split()) > 1 else rest
    return lead + rest


@pytest.mark.parametrize("name", ["reduction", "insert"])
@pytest.mark.parametrize("kind", ["roberta", "gpt2", "bert", "t5"])
def test_the_word_after_a_deleted_first_one_begins_the_text(kind, name, tmp_path):
    """Byte-level tokens tell " film" from "film": plain ids, embeddings and the library's own text have the latter."""
    folder = made(kind, tmp_path)
    more = {"operations": ["delete"], "stopwords": False, "edits": 4, "share": 1.0} if name == "insert" else {}
    task = make_task(f"text/{name}", victim=f"transformers:{folder}", samples=[(t, 0) for t in TEXTS], **more)
    batch = task.samples("test", list(range(len(TEXTS))))
    for many in (1, 2):
        form = batch.null()
        for lane, text in enumerate(TEXTS):
            sites = batch.site_mask()[lane].nonzero().squeeze(1).tolist()
            for e in range(min(many, len(text.split()) - 1)):
                form[lane, e] = torch.tensor([sites[e], 0])
        look = batch.look(form)
        assert look.real.all()
        plain = batch.inputs(look.form)
        texts = [written(t, min(many, len(t.split()) - 1)) for t in TEXTS]
        assert plain.strings() == texts
        want = torch.stack([alone(folder, t) for t in texts])
        near = 1e-5 * max(1.0, float(want.abs().max()))
        ones = torch.ones(look.form.shape[:2])
        with torch.no_grad():
            found = [task.victim(x) for x in (plain, texts, batch.relaxed(look.form, ones))]
            clean = task.victim(batch.relaxed(look.form, 0 * ones))
        for scores in found:
            assert (scores - want).abs().max() <= near
        assert (clean - torch.stack([alone(folder, t) for t in TEXTS])).abs().max() <= near


# -- many kinds of gaps --------------------------------------------------------------------------------------------
def gapped(kinds):
    """So many texts, each with a gap of its own."""
    gaps = [" " * a + "\t" * b for a in range(1, 16) for b in range(12)]
    return [f"a fine{g}film was dull" for g in gaps if g not in ("", " ")][:kinds]


def played(folder, texts, **more):
    victim = hub.load(folder)
    said = victim(texts).argmax(1).tolist()
    task = make_task("text/wordswap", victim=hub.load(folder), samples=list(zip(texts, said, strict=True)),
                     candidates=GROUPS, antonyms=False, share=1.0, stopwords=False, **more)  # fmt: skip
    return task, victim


@pytest.mark.parametrize(("kinds", "lanes"), [(FORMS - 2, 64), (110, 1), (110, 110)])
def test_many_kinds_of_gaps_have_the_verdicts_of_plain_texts(kinds, lanes, tmp_path):
    texts = gapped(kinds)
    task, victim = played(tiny_hub.roberta(tmp_path), texts, knowledge="score")
    result = advgym.attack(task, "greedy", episodes=kinds, lanes=lanes)
    assert result.attacked == kinds and 0 < result.success_rate < 1 and advgym.verify(result, task=task) == []
    batch = task.samples("test", [s.id for s in result.samples])
    form = batch.load([s.perturbation for s in result.samples])
    said = victim.like(lambda x: torch.cat([victim([t]) for t in x]))(batch.inputs(form).strings()).argmax(1)
    for s, now in zip(result.samples, said.tolist(), strict=True):
        assert s.after == now and s.success == (now != s.label)
    bare = lambda x: torch.cat([victim([t]) for t in x])  # noqa: E731
    plain = make_task("text/wordswap", victim=bare, samples=[(t, int(victim([t]).argmax())) for t in texts],
                      candidates=GROUPS, antonyms=False, share=1.0, stopwords=False)  # fmt: skip
    other = advgym.attack(plain, "greedy", episodes=kinds, lanes=lanes)
    for s, o in zip(result.samples, other.samples, strict=True):
        assert (s.id, s.success, s.before, s.after, s.queries, s.perturbation) == (
            o.id, o.success, o.before, o.after, o.queries, o.perturbation)  # fmt: skip


def test_too_many_kinds_of_gaps_give_no_gradients_and_say_why(tmp_path, caplog):
    """A white-box attack ended in the middle, and laid it on the tokenizer."""
    folder = tiny_hub.roberta(tmp_path)
    with pytest.raises(AdvgymError, match=rf"at most .score..*more than {FORMS} different gaps"):
        played(folder, gapped(150), knowledge="white-box")
    task, _ = played(folder, gapped(150))
    assert task.threat.knowledge == "score" and f"more than {FORMS} different gaps" in caplog.text
    assert "joins words" not in caplog.text
    assert advgym.attack(task, "greedy", episodes=150, lanes=64).attacked == 150
    assert "joins words" not in caplog.text


@pytest.mark.parametrize("agent", ["first-order", "hotflip"])
def test_as_many_kinds_of_gaps_as_fit_are_white_box(agent, tmp_path):
    """Every text of a batch, and every batch after other texts over the same words."""
    folder, texts = tiny_hub.roberta(tmp_path), gapped(FORMS - 2)
    task, _ = played(folder, texts)
    assert task.threat.knowledge == "white-box"
    for lanes in (7, 64):
        result = advgym.attack(task, agent, episodes=len(texts), lanes=lanes)
        assert result.attacked == len(texts) and advgym.verify(result, task=task) == []
    batch = task.samples("test", list(range(len(texts))))
    form = batch.look(batch.random(1)).form
    ones = torch.ones(form.shape[:2])
    with torch.no_grad():
        assert (task.victim(batch.relaxed(form, ones)) - task.victim(batch.inputs(form).strings())).abs().max() <= 1e-5
    more = gapped(160)[FORMS:]  # the same victim, the same words, other gaps
    other = make_task("text/wordswap", victim=task.victim, samples=[(t, 0) for t in more], candidates=GROUPS,
                      antonyms=False, share=1.0, stopwords=False)  # fmt: skip
    assert advgym.attack(other, agent, episodes=len(more)).attacked > 0
