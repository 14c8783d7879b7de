"""Labels and victims' answers as people have them: of images and recordings, each works or says what to do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from advgym import AdvgymError, DataError, Victim, VictimError, attack, make_task, verify
from advgym.envs.speech import symbols

W = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))


def scores(x):
    return x.flatten(1) @ W.to(x)


def images(labels):
    g = torch.Generator().manual_seed(1)
    return [(torch.rand(1, 5, 6, generator=g), label) for label in labels]


# -- labels -------------------------------------------------------------------------------------------------------
LABELS = [1, np.int32(1), np.int64(1), np.array(1), np.array([1]), torch.tensor(1), torch.tensor([1]), True,
          np.bool_(True), 1.0, np.float32(1.0), torch.tensor(1.0), "cat", np.str_("cat")]  # fmt: skip


@pytest.mark.parametrize("label", LABELS, ids=repr)
def test_every_spelling_of_a_class(label):
    victim = Victim(scores, card={"names": ["dog", "cat", "cow"]})
    task = make_task("image/linf", victim=victim, samples=images([0, label]))
    assert task.samples("test", [0, 1]).labels.tolist() == [0, 1] and task.goal.describe(torch.tensor(1)) == "cat"
    waves = [(np.sin(np.arange(400) / 5).astype(np.float32), y) for y in (0, label)]
    victim = Victim(lambda x: x[:, :3], card={"names": ["dog", "cat", "cow"]})
    task = make_task("speech/keyword", victim=victim, samples=waves)
    assert task.samples("test", [0, 1]).labels.tolist() == [0, 1]


@pytest.mark.parametrize("label", [-1, 1.5, float("nan"), None, "mouse", [1, 2], torch.tensor([0.0, 1.0]), "1.5", {}])
def test_what_is_no_class_names_its_sample(label):
    victim = Victim(scores, card={"names": ["dog", "cat", "cow"]})
    with pytest.raises(DataError, match="sample 1 has the label"):
        make_task("image/linf", victim=victim, samples=images([0, label]))
    with pytest.raises(DataError, match=r"the label of samples\[1\]"):
        make_task(
            "speech/keyword", victim=Victim(lambda x: x[:, :3]), samples=[(np.ones(9) / 2, 0), (np.ones(9), label)]
        )


def test_words_without_names_say_how_to_give_them():
    with pytest.raises(DataError, match="give them as Victim"):
        make_task("image/linf", victim=scores, samples=images(["cat"]))
    wave = np.sin(np.arange(6400) / 5).astype(np.float32) / 2
    assert make_task("speech/synth-keyword", samples=[(wave, "seven")]).samples("test", [0]).labels.tolist() == [7]


# -- answers ------------------------------------------------------------------------------------------------------
class Loud(nn.Module):
    """A module that answers as transformers' do."""

    def forward(self, x):
        return SimpleNamespace(logits=scores(x), hidden_states=None)


ANSWERS = {
    "module output": Loud(),
    "tuple": lambda x: (scores(x), None),
    "dict": lambda x: {"logits": scores(x)},
    "numpy": lambda x: scores(x).numpy(),
    "float64": lambda x: scores(x).double(),
    "numpy float64": lambda x: scores(x).double().numpy(),
    "list": lambda x: scores(x).tolist(),
    "list of rows": lambda x: list(scores(x)),
    "float16": lambda x: scores(x).half(),
    "bfloat16": lambda x: scores(x).bfloat16(),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_as_they_come(name):
    task = make_task("image/linf", victim=ANSWERS[name], samples=images([0, 1, 2, 0]))
    x = task.samples("test", [0, 1, 2]).x
    found = task.victim(x)
    assert found.dtype == torch.float32 and torch.allclose(found, scores(x), atol=0.05)
    result = attack(task, "square", episodes=4)
    assert not [f for f in result.flags if "crash" in f] and verify(result, task=task) == []


def test_gradients_pass_through_an_output():
    task = make_task("image/linf", victim=Loud(), samples=images([0, 1, 2, 0, 1, 2]))
    assert task.threat.knowledge == "white-box"
    assert not [f for f in attack(task, "pgd", episodes=6).flags if "crash" in f]


@pytest.mark.parametrize("answer", [lambda x: "cat", lambda x: None, lambda x: [["a"]] * len(x), lambda x: 1.0])
def test_what_is_no_answer_is_named(answer):
    with pytest.raises(VictimError, match="victim 'own'"):
        make_task("image/linf", victim=answer, samples=images([0]))


# -- recognisers --------------------------------------------------------------------------------------------------
SYMBOLS = " abc"
WAVES = [np.full(80, v, np.float32) for v in (0.1, 0.2, 0.3)]
TEXTS = ["ab", "b c", "aa"]


def heard(x):
    """0.1 is "ab", 0.2 "b c", 0.3 "aa"."""
    return [(x.float().mean(1) * 10).round().long().clamp(1, 3) - 1]


def texts(x):
    return [["AB!", "b  c", "aa"][int(heard(row[None])[0][0])] for row in x]


def frames(x, blank=0):
    """One-hot CTC frames of what is heard, the blank at an index of ours."""
    order = list(range(1, 5))
    order.insert(blank % 5, 0)
    out = torch.full((len(x), 8, 5), -9.0)
    for row, text in enumerate(TEXTS[int(heard(r[None])[0][0])] for r in x):
        ids = [v for s in symbols.encode(text, SYMBOLS) for v in (s, 0)]
        for t, s in enumerate([*ids, *[0] * (8 - len(ids))]):
            out[row, t, order.index(s)] = 9.0
    return out


def test_a_recogniser_that_writes_texts():
    task = make_task("speech/transcribe", victim=texts, samples=list(zip(WAVES, TEXTS, strict=True)), alphabet=SYMBOLS)
    assert task.threat.knowledge == "decision" and task.victim.access == "labels"
    batch = task.samples("test", [0, 1, 2])
    said = task.goal.output(task.victim(batch.x))
    assert [task.goal.text(row.tolist()) for row in said] == TEXTS
    assert task.goal.right(task.victim(batch.x), batch.labels).all()
    result = attack(task, "noise", episodes=3)
    assert result.clean_accuracy == 1.0 and verify(result, task=task) == []


@pytest.mark.parametrize("blank", [0, 2, 4, -1])
def test_the_blank_may_stand_anywhere(blank):
    samples = list(zip(WAVES, TEXTS, strict=True))
    victim = Victim(lambda x: frames(x, blank), access="scores")
    task = make_task("speech/transcribe", victim=victim, samples=samples, alphabet=SYMBOLS, blank=blank)
    batch = task.samples("test", [0, 1, 2])
    assert [task.goal.text(row.tolist()) for row in task.goal.output(task.victim(batch.x))] == TEXTS


@pytest.mark.parametrize(
    ("options", "says"),
    [({"blank": 5}, "blank is the index"), ({"blank": "last"}, "blank is a whole number"),
     ({"blank": True}, "blank is"), ({"alphabet": "abc"}, "another order or alphabet: alphabet=, blank="),
     ({"alphabet": "aab "}, "once")],
)  # fmt: skip
def test_other_alphabets_and_blanks_are_refused(options, says):
    samples = list(zip(WAVES, TEXTS, strict=True))
    with pytest.raises(AdvgymError, match=says):
        make_task("speech/transcribe", victim=frames, samples=samples, **{"alphabet": SYMBOLS, **options})


def test_a_module_keeps_its_gradients_behind_a_moved_blank():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(10, 5)

        def forward(self, x):
            return self.layer(x.view(len(x), 8, 10))

    samples = list(zip(WAVES, TEXTS, strict=True))
    task = make_task("speech/transcribe", victim=Net().eval(), samples=samples, alphabet=SYMBOLS, blank=-1)
    assert task.threat.knowledge == "white-box" and task.victim.module is not None
    x = task.samples("test", [0]).x.requires_grad_()
    task.victim(x)[0, 0, 0].backward()
    assert x.grad is not None and bool(x.grad.abs().sum() > 0)


@pytest.mark.parametrize("task", ["image/linf", "text/wordswap", "speech/keyword", "speech/transcribe", "graph/edge"])
@pytest.mark.parametrize("samples", [3, None, 2.5])
def test_samples_that_are_none_are_refused_by_name(task, samples):
    with pytest.raises(AdvgymError, match="samples"):
        make_task(task, samples=samples, victim=lambda x: torch.zeros(len(x), 2))
