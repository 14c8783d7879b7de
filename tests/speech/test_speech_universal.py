"""One sound for many utterances: members, budgets, and a verdict on utterances that no attack has seen."""

from functools import partial

import numpy as np
import pytest
import torch

from advgym import AdvgymError, attack, check_vector_env, make, make_task, verify
from advgym.envs.speech.data import digits

torch.set_num_threads(1)
FEW = {"utterances": 3}
BOTH = ["speech/synth-universal", "speech/synth-prepend"]


@pytest.mark.parametrize("name", BOTH)
def test_members_hear_the_same_sound(name):
    batch = make_task(name, **FEW).samples("test", [0, 1])
    p = batch.random(0)
    clean, heard, lengths = batch.pairs(batch.look(p).form)
    assert heard.shape[0] == 6 and torch.equal(heard * 32768, torch.round(heard * 32768))
    added = (heard - clean).view(2, 3, -1)
    if name.endswith("prepend"):
        assert torch.equal(added[:, 0, :5120], batch.look(p).form) and torch.equal(added[:, 0], added[:, 2])
        assert not added[..., 5120:].any() and (lengths > 5120).all()
    else:
        inside = torch.arange(heard.shape[1]) < lengths.unsqueeze(1)
        assert not added.flatten(0, 1)[~inside].any() and (added.abs().amax(2) <= 0.02).all()
    assert torch.equal(batch.inputs(batch.look(batch.null()).form), clean)
    assert batch.view()["envelope"].shape == (2, 64)
    far = batch.raw_distance(heard, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert (far <= batch.reach[0] + 1e-6).all() and (far > 0).all()


@pytest.mark.parametrize(
    ("name", "options"), [(BOTH[0], {"goal": "targeted"}), (BOTH[0], {"knowledge": "transfer"}), (BOTH[1], {})]
)
def test_the_tasks_keep_the_contract(name, options):
    check_vector_env(partial(make, name, utterances=2, **options), lanes=2)


def test_the_verdict_is_on_others():
    task = make_task("speech/synth-universal", **FEW)
    seen, judged = task.samples("test", [0, 1]), task.judged("test", [0, 1])
    train, test = (digits.utterances("synth-digits", s).wave.float() / 32768 for s in ("train", "test"))
    assert torch.equal(seen.waves.flatten(0, 1), train[:6]) and torch.equal(judged.waves.flatten(0, 1), test[:6])
    train, other = task.samples("train", [0]), task.judged("train", [0])
    assert not torch.equal(train.waves, other.waves) and torch.equal(
        other.waves[0], task.samples("train", [1]).waves[0]
    )
    assert task.sizes == {"train": 133, "test": 66}


def test_speakers_are_kept_apart():
    task = make_task("speech/synth-universal", unseen="speakers", **FEW)
    assert task.sizes["test"] == 66 and not torch.equal(
        task.samples("test", [0]).waves, make_task("speech/synth-universal", **FEW).samples("test", [0]).waves
    )


@pytest.mark.parametrize(("name", "goal"), [(BOTH[0], "untargeted"), (BOTH[0], "targeted"), (BOTH[1], "silence")])
def test_rates_count_the_unseen_members_and_are_verified(name, goal):
    result = attack(name, "pgd", episodes=2, lanes=2, clean=2, queries=30, goal=goal, wer=0.4, **FEW)
    assert verify(result) == [] and all(s.queries <= 30 and s.queries % 3 == 0 for s in result.samples)
    task = make_task(name, goal=goal, wer=0.4, **FEW)
    assert [s.label for s in result.samples] == task.judged("test", [s.id for s in result.samples]).labels.tolist()
    after, before = (torch.tensor([getattr(s, k) for s in result.samples]) for k in ("after", "before"))
    target = torch.tensor([s.target for s in result.samples]) if goal == "targeted" else None
    met = task.goal.members_met(after, before, target)
    assert result.members_rate == float(met.double().mean()) and result.columns["wer"].ratio == ("word_edits", "words")


def test_own_recordings_are_halved_or_given_twice():
    def victim(x):
        loud = x.abs().amax(1) > 0.1
        path = torch.where(loud[:, None], torch.tensor([2, 1, 3, 0, 0]), torch.tensor([4, 0, 0, 0, 0]))
        return torch.nn.functional.one_hot(path, 5) * 9.0

    entries = [(np.full(50, 0.5 if i % 2 else 0.05), "a b" if i % 2 else "c") for i in range(8)]
    made = partial(make_task, "speech/universal", victim=victim, alphabet=" abc", utterances=2)
    task = made(samples=entries)
    assert task.sizes == {"test": 2}
    assert task.samples("test", [1]).waves[0, :, 0].tolist() == pytest.approx([0.05, 0.5], abs=1e-4)
    task = made(samples=entries[:4], train=entries)
    assert task.sizes == {"test": 2, "train": 4}
    with pytest.raises(AdvgymError, match="fewer"):
        made(samples=entries[:2])
    with pytest.raises(AdvgymError, match="names its speakers"):
        made(samples=entries, unseen="speakers")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [(BOTH[0], {"utterances": 0}, "utterances"), (BOTH[0], {"norm": "snr"}, "norm"),
     (BOTH[0], {"unseen": "x"}, "unseen"), (BOTH[1], {"seconds": 0}, "seconds"),
     (BOTH[0], {"utterances": 10_000}, "fewer")],
)  # fmt: skip
def test_mistakes_are_explained(name, options, said):
    with pytest.raises(AdvgymError, match=said):
        make_task(name, **options)
