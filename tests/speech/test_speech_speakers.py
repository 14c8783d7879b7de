"""Speakers and trials, the equal error rate against its definition, and victims as good as their cards say."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.core.task import load_victim
from advgym.envs.speech.data import speakers
from advgym.envs.speech.models.nets import SpeakerNet, Verifier
from advgym.envs.speech.victims import voices
from advgym.errors import AdvgymError, DataError


def test_synthetic_speakers_are_in_both_splits_and_no_take_is():
    train, test = (speakers.speakers("synth-digits", s) for s in ("train", "test"))
    assert {len(train), len(test)} == set(speakers.speaker_sizes("synth-digits").values())
    assert torch.bincount(test.labels).tolist() == [30] * 10 and set(train.labels.tolist()) == set(range(10))
    assert not set(speakers.TAKES["train"]) & set(speakers.TAKES["test"]) and test.wave.shape[1] == 6400
    seen = {tuple(w[:400].tolist()) for w in train.wave}
    assert not any(tuple(w[:400].tolist()) in seen for w in test.wave)


def test_trials_claim_one_speaker():
    test = speakers.trials("synth-digits", "test")
    assert len(test) == speakers.trial_sizes("synth-digits")["test"] == 290
    assert set(test.claims) == {"1000"} and int(test.labels.sum()) == 100
    assert all((who == "1000") == bool(y) for who, y in zip(test.speakers, test.labels.tolist(), strict=True))
    assert 3 <= int(test.labels[:20].sum()) <= 12  # they take turns
    train = speakers.trials("synth-digits", "train", "1003")
    assert len(train) == speakers.trial_sizes("synth-digits")["train"] and set(train.claims) == {"1003"}
    assert set(test.speakers) & set(speakers.trials("synth-digits", "train").speakers) == {"1000"}
    with pytest.raises(AdvgymError, match="unknown speaker to enrol 'bob'"):
        speakers.trials("synth-digits", "test", "bob")


def test_drawn_speakers_and_trials():
    name = "synth-digits#7:40"
    found, again = speakers.speakers(name, "hidden"), speakers.speakers("synth-digits#7:12", "hidden")
    assert len(found) == 40 and torch.equal(found.wave[:12], again.wave) and found.labels.max() < 10
    trials = speakers.trials(name, "hidden")
    assert speakers.trial_sizes(name) == {**speakers.trial_sizes("synth-digits"), "hidden": 40}
    assert 4 <= int(trials.labels.sum()) <= 22


def folder(tmp_path, who=("ann", "bo")):
    draw = np.random.default_rng(0)
    for name in who:
        for index in (0, 3, 6, 12, 30):
            wave = draw.integers(-9000, 9000, 900).astype(np.int16)
            soundfile.write(str(tmp_path / f"7_{name}_{index}.wav"), wave, 8000)
    return str(tmp_path)


def test_folders_have_speakers_by_their_names(tmp_path):
    dataset = folder(tmp_path)
    assert speakers.names(dataset) == ["ann", "bo"]
    assert speakers.speaker_sizes(dataset) == {"train": 6, "test": 4} == speakers.trial_sizes(dataset)
    assert speakers.speakers(dataset, "test").labels.tolist() == [0, 0, 1, 1]
    assert len(speakers.speakers(dataset, "train")) == 6
    assert {w.take for w in speakers.recordings(dataset, "dev")} == {6}
    assert speakers.trials(dataset, "test", "bo").labels.tolist() == [0, 0, 1, 1]
    assert len(speakers.trials(dataset, "train")) == 6
    (tmp_path / "one").mkdir()
    with pytest.raises(DataError, match=r"one speaker alone \(ann\)"):
        speakers.names(folder(tmp_path / "one", ["ann"]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), own=st.integers(1, 9), other=st.integers(1, 9), levels=st.sampled_from([3, 1000]))
def test_the_equal_error_rate_is_the_best_of_all_thresholds(seed, own, other, levels):
    make = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, levels, (own + other,), generator=make) / levels
    genuine = torch.arange(own + other) < own
    rate, threshold = voices.equal_error(scores, genuine)
    accept, reject = voices.error_rates(scores, genuine, threshold)
    assert rate == pytest.approx((accept + reject) / 2)
    every = [-1.0, *sorted(set(scores.tolist())), 2.0]
    cuts = [(a + b) / 2 for a, b in zip(every[1:], every[:-1], strict=True)] + every
    gaps = [abs(np.subtract(*voices.error_rates(scores, genuine, c))) for c in cuts]
    assert abs(accept - reject) <= min(gaps) + 1e-9


def test_equal_error_of_what_is_told_apart_and_of_what_is_not():
    scores = torch.tensor([0.9, 0.8, 0.2, 0.1])
    assert voices.equal_error(scores, scores > 0.5) == (0.0, pytest.approx(0.5))
    assert voices.equal_error(scores, scores < 0.5)[0] == 1.0
    with pytest.raises(ValueError, match="impostors"):
        voices.equal_error(scores, scores > 0)


def test_a_verifier_accepts_exactly_above_its_threshold():
    torch.manual_seed(0)
    net = Verifier(size=8, channels=8).eval()
    x = torch.randn(6, 2000) * 0.1
    with torch.no_grad():
        net.enrolled.copy_(net.embed(x[:1])[0])
        cosine = net.embed(x) @ net.enrolled
        net.threshold.fill_(float(cosine.median()))
        scores = net(x)
    assert torch.equal(scores.argmax(1) == 1, cosine > net.threshold)
    torch.testing.assert_close(scores[:, 0], -scores[:, 1])
    torch.testing.assert_close(net(x[2:3]), scores[2:3], atol=1e-5, rtol=1e-5)
    silent = torch.zeros(1, 800, requires_grad=True)
    (g,) = torch.autograd.grad(SpeakerNet(4, channels=8).eval()(silent).sum(), silent)
    assert g.isfinite().all()


@torch.no_grad()
def right(victim, clips) -> float:
    scores = torch.cat([victim(part) for part in torch.split(clips.wave.float() / 32768, 100)])
    return float((scores.argmax(1) == clips.labels).float().mean())


@pytest.mark.parametrize(("name", "least"), [("synth-speaker-cnn", 0.97), ("synth-speaker-small", 0.95)])
def test_synthetic_identification(name, least):
    victim = load_victim(name)
    found = right(victim, speakers.speakers("synth-digits", "test"))
    assert found >= least and found == pytest.approx(victim.card["clean_accuracy"], abs=0.011)
    assert victim.card["rate"] == 8000 and victim.card["names"] == [str(i) for i in range(10)]


@pytest.mark.parametrize("name", ["synth-verify", "synth-verify-small"])
def test_synthetic_verification(name):
    victim, card = load_victim(name), load_victim(name).card
    assert right(victim, speakers.trials("synth-digits", "test")) == pytest.approx(card["clean_accuracy"], abs=0.011)
    scores, genuine = voices.all_claims(victim.module, "synth-digits", "test")
    assert voices.equal_error(scores, genuine)[0] == pytest.approx(card["eer"], abs=0.005) and card["eer"] <= 0.07
    assert float(victim.module.threshold) == pytest.approx(card["threshold"], abs=1e-6) and not card["seen"]
    assert card["names"] == ["reject", "accept"] and card["enrolled"] == "1000"


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(("name", "load"), [("fsdd-speaker-cnn", speakers.speakers), ("fsdd-verify", speakers.trials)])
def test_free_spoken_digits(data_dir, name, load):
    victim = load_victim(name)
    assert right(victim, load("fsdd", "test")) == pytest.approx(victim.card["clean_accuracy"], abs=0.011)
    assert victim.card["clean_accuracy"] >= 0.97 and victim.card.get("eer", 0) <= 0.02
