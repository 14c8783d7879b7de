"""Models whose answer is no class: one logit, numbers, sets of labels."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import advgym
from advgym import Victim
from advgym.core.task import make_task
from advgym.envs.text.goals.answers import FINE, AnyLabelGoal, MoveGoal, meet
from advgym.envs.text.victims import hub
from advgym.errors import AdvgymError, DataError, VictimError

sys.path.insert(0, str(Path(__file__).parent))
import tiny_hub

torch.set_num_threads(1)
TEXTS = ["a fine film", "an awful plot", "good acting in a dull film", "the movie was fine"]
GROUPS = {"fine": ["awful", "good"], "awful": ["fine"], "film": ["movie"], "dull": ["good"], "movie": ["film"]}
EASY = {"candidates": GROUPS, "antonyms": False, "edits": 2}
WORDS = {"fine": 1.0, "good": 0.5, "awful": -1.0, "dull": -0.5}


def stars(texts):
    return torch.tensor([[3 + sum(WORDS.get(w, 0.0) for w in t.split())] for t in texts])


def moods(texts):
    return torch.tensor([[sum(WORDS.get(w, 0.0) for w in t.split()), 1.0 - 2 * ("film" in t)] for t in texts])


@pytest.fixture
def bert(tmp_path):
    """A tiny classifier of BERT's with a head of another kind."""

    def make(many, kind):
        import transformers

        folder = tiny_hub.bert(tmp_path / f"{many}{kind}")
        config = transformers.AutoConfig.from_pretrained(folder, num_labels=many, problem_type=kind)
        torch.manual_seed(8)
        found = transformers.BertForSequenceClassification(config).eval()
        found.save_pretrained(folder)
        return folder, found, transformers.AutoTokenizer.from_pretrained(folder)

    return make


def logits(found, tokenizer):
    with torch.no_grad():
        return torch.cat([found(**tokenizer(t, return_tensors="pt")).logits for t in TEXTS])


def test_one_logit_is_that_of_the_second_of_two_classes(bert, caplog):
    folder, found, tokenizer = bert(1, None)
    z = logits(found, tokenizer)
    victim = hub.load(folder)
    assert "one logit z" in caplog.text and victim.access == "gradients"
    assert torch.allclose(victim(TEXTS), torch.cat([0 * z, z], 1), atol=1e-5)
    labels = (z[:, 0] > 0).long().tolist()
    result = advgym.attack("text/wordswap", "greedy", victim=victim, samples=list(zip(TEXTS, labels, strict=True)),
                           episodes=4, **EASY)  # fmt: skip
    assert result.clean_accuracy == 1.0


def test_a_regressor_is_moved_by_more_than_delta(bert):
    folder, found, tokenizer = bert(1, "regression")
    y = logits(found, tokenizer)
    victim = f"transformers:{folder}?delta=0.001"
    task = make_task("text/wordswap", victim=victim, samples=list(zip(TEXTS, y[:, 0].tolist(), strict=True)), **EASY)
    assert isinstance(task.goal, MoveGoal) and task.threat.knowledge == "white-box"
    for agent in ("greedy", "first-order"):
        result = advgym.attack(task, agent, episodes=4)
        assert result.clean_accuracy == 1.0 and result.success_rate > 0


def test_numbers_of_a_callable_and_what_a_success_is():
    victim = Victim(stars, card={"answers": "number", "delta": 1.5})
    samples = [(t, v) for t, v in zip(TEXTS, (4.0, 2.0, 9.0, 4), strict=True)]
    result = advgym.attack("text/wordswap", "greedy", victim=victim, samples=samples, episodes=4, **EASY)
    assert result.clean_accuracy == 0.75 and len(result.samples) == 3  # one label is further than delta from the answer
    by = {s.id: s for s in result.samples}
    assert [by[i].success for i in (0, 1, 3)] == [True, True, True]
    assert by[0].objective == pytest.approx(0.5, abs=1e-2)
    small = advgym.attack("text/wordswap", "greedy", victim=Victim(stars, card={"answers": "number", "delta": 2.5}),
                          samples=samples[:2], episodes=2, **EASY)  # fmt: skip
    assert small.success_rate == 0


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=4), st.floats(-50, 50), st.floats(0.01, 10))
def test_moves_are_told_alike_by_scores_and_by_outputs(values, move, delta):
    goal = MoveGoal(len(values), delta)
    y = torch.tensor([values], dtype=torch.float64)
    ref = goal.output(y)
    assert ((goal.value(ref) - y).abs() <= goal.step * 0.51).all() and goal.right(y, ref).all()
    objective, _ = goal.judge(y + move, ref, None)
    if abs(abs(move) - delta) > 3 * goal.step:
        assert bool(objective > 0) == (abs(move) > delta) == bool(goal.met(goal.output(y + move), ref, None))
    x = y.clone().requires_grad_()
    (slope,) = torch.autograd.grad(goal.judge(x, ref, None)[1].sum(), x)
    assert slope.abs().sum() > 0 and FINE * goal.step == pytest.approx(delta)


def test_any_label_that_turns_is_a_success(bert):
    folder, found, tokenizer = bert(3, "multi_label_classification")
    rows = (logits(found, tokenizer) > 0).long()
    names = [found.config.id2label[i] for i in range(3)]
    labels = ["|".join(n for n, v in zip(names, row, strict=True) if v) for row in rows.tolist()]
    task = make_task("text/wordswap", victim=hub.load(folder), samples=list(zip(TEXTS, labels, strict=True)), **EASY)
    assert isinstance(task.goal, AnyLabelGoal) and task.goal.describe(rows[0]) == (
        labels[0].replace("|", " + ") or "none"
    )
    result = advgym.attack(task, "first-order", episodes=4)
    assert result.clean_accuracy == 1.0
    victim = Victim(moods, card={"answers": "several", "classes": ["nice", "book"]})
    samples = [("a fine film", "nice"), ("an awful plot", ["book"]), ("good plot", "nice|book"), ("a film", [0, 0])]
    result = advgym.attack("text/wordswap", "greedy", victim=victim, samples=samples, episodes=4, **EASY)
    assert result.clean_accuracy == 1.0
    assert {s.id: s.success for s in result.samples} == {0: True, 1: True, 2: False, 3: True}
    assert {s.id: s.after for s in result.samples}[3] == [0, 1]


@pytest.mark.parametrize(
    ("card", "answer", "label", "more", "error", "words"),
    [
        ({"answers": "number"}, stars, 1.0, {}, VictimError, "say by how much a success moves them"),
        ({"answers": "words"}, stars, 1.0, {}, VictimError, "is one of number, several"),
        ({"answers": "number", "delta": 1}, stars, "many", {}, DataError, r"the label is 1 number\(s\)"),
        ({"answers": "number", "delta": 1}, stars, 3.0, {"goal": "targeted"}, AdvgymError, "'targeted' needs a class"),
        ({"answers": "number", "delta": 1}, stars, 3.0, {"train": [("a", 1.0)]}, AdvgymError, "train= is for classes"),
        ({"answers": "several", "classes": ["a", "b"]}, moods, "c", {}, DataError, "'c' is none of the labels a, b"),
        ({"answers": "several", "classes": ["a"]}, moods, "a", {}, VictimError, "2 scores and names 1 labels"),
    ],
)
def test_what_does_not_fit_is_named(card, answer, label, more, error, words):
    with pytest.raises(error, match=words):
        make_task("text/wordswap", victim=Victim(answer, card=card), samples=[("a fine film", label)], **EASY, **more)


@pytest.mark.parametrize("task", ["text/trigger", "text/reduction"])
def test_tasks_that_need_classes_say_so(task):
    victim = Victim(stars, card={"answers": "number", "delta": 1})
    samples = [(t, 3.0) for t in TEXTS]
    from advgym import registry

    if task not in registry.tasks():
        task = next(n for n, row in registry.tasks().items() if "reducing" in row["make"] and "dataset" not in row)
    with pytest.raises(AdvgymError, match=r"is for victims that answer one class, and .* numbers \(regression\)"):
        make_task(task, victim=victim, samples=samples)


def test_labels_of_data_are_read_in_every_form():
    victim = Victim(moods, card={"answers": "several", "classes": ["joy", "anger"]})
    values = ["joy", "anger; JOY", "", ["anger"], torch.tensor([1, 0]), [0, 1]]
    assert meet(values, [""] * 6, victim, 2) == [[1, 0], [1, 1], [0, 0], [0, 1], [1, 0], [0, 1]]
