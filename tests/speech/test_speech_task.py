"""The speech tasks against the contract: constraint, support, storage, own victims and recordings."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advgym.core import rng
from advgym.core.task import make_task
from advgym.core.victim import Victim
from advgym.envs.speech import symbols
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.measures.levels import snr_db
from advgym.envs.speech.models.nets import CtcNet, KeywordCnn
from advgym.envs.speech.perturb.clips import ClipBatch
from advgym.errors import AdvgymError, DataError, VictimError

SYNTH = ["speech/synth-keyword", "speech/synth-transcribe"]
IDS = [3, 0, 11, 42]


def clips(n: int = 3, samples: int = 600, norm: str = "snr", snr: float = 20.0, seed: int = 0) -> ClipBatch:
    """Noise of several loudnesses and lengths."""
    make = np.random.default_rng(seed)
    length = torch.tensor([samples, samples // 2, 7][:n])
    x = torch.from_numpy(make.normal(0, 1, (n, samples)) * np.array([[0.3], [0.02], [0.9]])[:n])
    x = (x * data.LEVELS).round().clamp(-data.LEVELS, data.LEVELS - 1).float() / data.LEVELS
    x = torch.where(torch.arange(samples) < length[:, None], x, 0.0)
    constraint = {"norm": norm, "eps": 0.02, "snr": snr}
    return ClipBatch(torch.arange(n), torch.zeros(n, dtype=torch.int64), x, length, constraint)


@pytest.mark.parametrize("name", SYNTH)
def test_batches_are_canonical_and_of_one_shape(name):
    task = make_task(name)
    batch = task.samples("test", IDS)
    again = task.samples("test", IDS[:1])
    assert torch.equal(batch.x[:1], again.x) and torch.equal(batch.labels[:1], again.labels)
    assert batch.ids.tolist() == IDS and batch.x.dtype == torch.float32
    assert torch.equal(batch.x * 32768, torch.round(batch.x * 32768)) and batch.x.abs().max() <= 1
    assert not batch.x[~batch.support].any()
    assert {k: v.shape for k, v in batch.view().items()} == {"envelope": (4, 64)}
    assert torch.isfinite(batch.view()["envelope"]).all()
    look = batch.look(batch.null())
    assert look.null.all() and look.valid.all() and not look.distance.any()
    assert torch.equal(look.form, batch.x)
    scores = task.victim(batch.inputs(look.form))
    assert scores.shape[1:] == task.goal.scores_shape
    assert task.goal.output(scores).shape[1:] == task.goal.output_shape
    assert task.goal.right(scores, batch.labels).all()


@pytest.mark.parametrize("name", SYNTH)
def test_lanes_swap(name):
    task = make_task(name)
    batch, other = task.samples("test", IDS), task.samples("train", [5])
    merged = batch.put(torch.tensor([2]), other)
    for key in ("ids", "labels", "x", "level", "limit", "radius", "support", "length"):
        assert torch.equal(getattr(merged, key)[2], getattr(other, key)[0])
        assert torch.equal(getattr(merged, key)[0], getattr(batch, key)[0])


@pytest.mark.parametrize("norm", ["linf", "l2", "snr"])
def test_the_padding_cannot_be_attacked(norm):
    batch = clips(norm=norm)
    delta = batch.random(3)
    loud = torch.where(batch.support, delta, 0.5)
    a, b = batch.look(delta), batch.look(loud)
    assert torch.equal(a.form, b.form) and torch.equal(a.digest, b.digest) and b.valid.all()
    assert not a.form[~batch.support].any()
    only = torch.where(batch.support, 0.0, 0.5)
    assert batch.look(only).null.all()


@pytest.mark.parametrize("norm", ["linf", "l2", "snr"])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-5, 1e-3, 0.02, 0.3, 5.0]),
    snr=st.sampled_from([0.0, 20.0, 60.0]),
)
def test_projections_are_valid_and_keep_what_is_valid(norm, seed, scale, snr):
    batch = clips(norm=norm, snr=snr, seed=seed)
    p = rng.normal(seed, batch.ids, batch.shape, 1) * scale
    landed = batch.project(p)
    look = batch.look(landed)
    assert look.valid.all()
    assert (look.distance.double() <= batch.reach.double() * (1 + 2e-6) + 1e-6).all()
    assert torch.equal(batch.look(batch.project(look.form - batch.x)).form, look.form)
    assert batch.check(batch.random(seed)).all()


def test_the_snr_ball_is_a_noise_budget():
    batch = clips(snr=25.0, samples=6000)
    delta = batch.project(torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(0)))
    change = batch.look(delta).form - batch.x
    found = snr_db(batch.x, change, batch.support)
    assert (found >= 25.0 - 1e-4).all() and (found[:2] < 25.1).all()
    closer = snr_db(batch.x, batch.look(delta * 1.01).form - batch.x, batch.support)
    assert torch.equal(batch.check(delta * 1.01), closer >= 25.0)


def test_nan_and_infinity_are_no_input():
    batch = clips()
    p = torch.zeros_like(batch.x)
    p[0, 3], p[1, 5] = torch.nan, torch.inf
    look = batch.look(p)
    assert look.real.tolist() == look.valid.tolist() == [False, False, True]


@pytest.mark.parametrize("name", SYNTH)
def test_dump_and_load(name):
    batch = make_task(name, norm="snr").samples("test", IDS)
    form = batch.look(batch.random(0)).form
    stored = json.loads(json.dumps([batch.dump(form[i], i) for i in range(len(batch))]))
    assert torch.equal(batch.look(batch.load(stored)).form, form)
    with pytest.raises(DataError):
        batch.load([{**stored[0], "shape": [3]}, *stored[1:]])


@pytest.mark.parametrize("name", SYNTH)
@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_the_gradient_reaches_the_waveform_and_climbs(name, goal):
    task = make_task(name, goal=goal)
    batch = task.samples("test", IDS)
    ref = task.goal.output(task.victim(batch.x))
    target = task.goal.targets(0, batch.ids, ref) if goal == "targeted" else None
    delta, start = batch.null(), None
    for _ in range(8):
        delta.requires_grad_()
        objective, surrogate = task.goal.judge(task.victim(batch.look(delta).form), ref, target)
        start = surrogate.detach() if start is None else start
        assert (objective <= 0).all() or _ > 0
        (g,) = torch.autograd.grad(surrogate.sum(), delta)
        assert torch.isfinite(g).all() and (g.abs().amax(1) > 0).all()
        delta = batch.project(delta.detach() + 0.004 * g.sign())
    form = batch.look(delta).form
    assert (task.goal.judge(task.victim(form), ref, target)[1] > start).all()


def test_one_clip_answers_alike_alone_and_in_a_batch():
    for name in SYNTH:
        task = make_task(name)
        x = task.samples("test", IDS).x
        together = task.victim(x)
        torch.testing.assert_close(task.victim(x[2:3]), together[2:3], atol=1e-4, rtol=1e-4)


# -- the caller's own ----------------------------------------------------------------------------------------------
def tones(n: int = 4) -> list[tuple[np.ndarray, int]]:
    """Low and high tones of several lengths."""
    t = np.arange(2000) / 8000
    return [(0.5 * np.sin(2 * np.pi * (300 + 900 * (i % 2)) * t)[: 2000 - 100 * i], i % 2) for i in range(n)]


def crossings(x: torch.Tensor) -> torch.Tensor:
    """Scores of (low, high) from the rate of sign changes."""
    rate = (x[:, 1:].sign() != x[:, :-1].sign()).float().mean(1)
    return torch.stack([0.15 - rate, rate - 0.15], 1)


def test_own_classifier_and_recordings():
    task = make_task("speech/keyword", victim=crossings, samples=tones(), eps=0.1)
    assert task.sizes == {"test": 4} and task.victim.access == "scores"
    assert task.threat.knowledge == "score"
    batch = task.samples("test", [0, 1, 2, 3])
    assert batch.x.shape == (4, 2000) and batch.length.tolist() == [2000, 1900, 1800, 1700]
    scores = task.victim(batch.x)
    assert task.goal.right(scores, batch.labels).all() and task.goal.describe(torch.tensor(1)) == "1"
    assert batch.reach[0].item() == pytest.approx(0.1, abs=1e-4)


def test_own_labels_only_victim():
    victim = Victim(lambda x: crossings(x).argmax(1), access="labels")
    task = make_task("speech/keyword", victim=victim, samples=tones())
    assert task.threat.knowledge == "decision" and task.goal.outputs == 2
    batch = task.samples("test", [1, 2])
    assert task.goal.right(task.victim(batch.x), batch.labels).all()


def test_own_module_on_a_synthetic_task_and_own_clips_on_its_victim():
    net = KeywordCnn(channels=8).eval()
    assert make_task("speech/synth-keyword", victim=net).threat.knowledge == "white-box"
    wave = data.keywords("synth-digits", "test").wave[7].numpy()
    task = make_task("speech/synth-keyword", samples=[(wave, 7)])
    batch = task.samples("test", [0])
    assert batch.x.shape == (1, 6400) and task.goal.right(task.victim(batch.x), batch.labels).all()
    with pytest.raises(DataError, match="6400 at most"):
        make_task("speech/synth-keyword", samples=[(np.zeros(7000), 7)])


def test_own_recogniser():
    letters = " abc"

    def victim(x: torch.Tensor) -> torch.Tensor:
        """Says "a b" to what is loud, "c" to what is quiet."""
        loud = x.abs().amax(1) > 0.1
        path = torch.where(loud[:, None], torch.tensor([2, 1, 3, 0, 0]), torch.tensor([4, 0, 0, 0, 0]))
        return nn.functional.one_hot(path, 5) * 9.0

    entries = [(np.full(50, 0.5), "a b"), (np.full(40, 0.05), "c")]
    task = make_task("speech/transcribe", victim=victim, samples=entries, alphabet=letters, goal="targeted")
    batch = task.samples("test", [0, 1])
    scores = task.victim(batch.x)
    assert task.goal.right(scores, batch.labels).all() and batch.labels.shape == (2, 5)
    ref = task.goal.output(scores)
    assert [task.goal.describe(r) for r in ref] == ['"a b"', '"c"']
    for target in task.goal.targets(1, batch.ids, ref):
        assert set(task.goal.text(target.tolist()).split()) <= {"a", "b", "c"}
    assert task.line(batch, 0, batch.x[0] * 0.1, ref[0], ref[1]) == '"a b" -> "c", SNR 0.9 dB'
    assert task.line(batch, 0, batch.x[0] * 0.1) == "clip 0, 0.01 s, SNR 0.9 dB"
    with pytest.raises(VictimError, match=r"want \(1, frames, 29\)"):
        make_task("speech/transcribe", victim=victim, samples=entries)
    with pytest.raises(AdvgymError, match="no symbol for 'x'"):
        make_task("speech/transcribe", victim=victim, samples=[(np.full(50, 0.5), "x")], alphabet=letters)


def test_a_module_of_its_own_size_is_a_recogniser():
    task = make_task("speech/synth-transcribe", victim=CtcNet(channels=8, layers=1).eval())
    assert task.goal.outputs == len(symbols.ALPHABET) + 1


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("speech/synth-keyword", {"norm": "l1"}, "unknown value of option norm.*dbx, l2, linf, mask, snr"),
        ("speech/synth-keyword", {"eps": 1e-6}, "16-bit step"),
        ("speech/synth-keyword", {"eps": "loud"}, "eps is a number"),
        ("speech/synth-keyword", {"eps": float("nan")}, "16-bit step"),
        ("speech/synth-keyword", {"snr": float("inf")}, "dB"),
        ("speech/synth-keyword", {"dataset": "fsd"}, "did you mean 'fsdd'"),
        ("speech/keyword", {"victim": crossings}, "samples="),
        ("speech/keyword", {"samples": tones()}, "victim="),
        ("speech/keyword", {"samples": tones(), "victim": lambda x: x.mean(1)}, "want .1, classes."),
        ("speech/keyword", {"samples": tones(), "victim": lambda x: 1 / 0}, "fails on a float32 batch"),
        ("speech/keyword", {"samples": tones(), "victim": lambda x: crossings(x) * torch.nan}, "NaN"),
        ("speech/keyword", {"samples": [(np.ones(9), 5)], "victim": crossings}, "class 5"),
        ("speech/synth-transcribe", {"victim": crossings}, "want .1, frames, 17."),
    ],
)
def test_mistakes_are_explained(name, options, said):
    with pytest.raises(AdvgymError, match=said):
        make_task(name, **options)


def test_transfer_names_another_victim():
    for name in SYNTH:
        task = make_task(name, knowledge="transfer")
        assert task.surrogate is not None and task.surrogate.name != task.victim.name
        x = task.samples("test", [0]).x
        assert task.surrogate(x).shape == task.victim(x).shape
