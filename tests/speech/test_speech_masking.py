"""The masking model against closed forms, and the budget that is made of it."""

import numpy as np
import pytest
import torch

from advgym import make_task
from advgym.envs.speech.constraints import masking
from advgym.envs.speech.perturb.clips import ClipBatch, MaskedBatch

torch.set_num_threads(1)
RATE = 8000


def tone(hertz=1000.0, level=1.0, samples=6000, rate=RATE):
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(samples) / rate)[None]


def clips(eps=1.0, kind=MaskedBatch):
    task = make_task("speech/synth-transcribe")
    b = task.samples("test", [0, 1, 2, 3])
    return kind(b.ids, b.labels, b.x, b.length, {"norm": "mask", "eps": eps, "snr": 20.0, "dbx": -30.0}, RATE)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_sine_has_its_level_whoever_asks(rate):
    """96 dB at full scale, 20 dB less for a tenth: one calibration, in windows of 64 ms at every rate."""
    for level, want in ((1.0, 96.0), (0.1, 76.0), (1e-3, 36.0)):
        found = masking.power_db(tone(level=level, samples=rate, rate=rate), rate)[0, 20]
        assert found.max().item() == pytest.approx(want, abs=0.01) and found.argmax() == 64
    assert masking.scale_of(rate, torch.device("cpu")).hop == rate * 16 // 1000


def test_a_tone_hides_what_the_model_says():
    """At its own bin: the three bins' level less 0.275 dB a Bark and 6.025; 17 dB a Bark below it."""
    threshold = masking.threshold_db(tone(level=0.5), RATE)[0, 20]
    three = 10 * np.log10(10**9.0 * 1.5) + 20 * np.log10(0.5) + 6  # the main lobe's 1 + 1/4 + 1/4
    want = three - 0.275 * masking.bark(1000) - 6.025
    assert threshold[64].item() == pytest.approx(want, abs=0.05)
    scale = masking.scale_of(RATE, torch.device("cpu"))
    above = int((scale.bark - scale.bark[64] - 1).abs().argmin())
    step = float(scale.bark[above] - scale.bark[64])
    assert (threshold[64] - threshold[above]).item() == pytest.approx(17 * step, abs=0.6)
    assert (threshold >= scale.quiet - 1e-4).all()


def test_the_spreading_function_is_continuous_and_flatter_above_a_louder_masker():
    d = torch.linspace(-2.999, 7.999, 4000)
    a, b = masking.spread(d)
    for level in (30.0, 60.0, 90.0):
        s = a + b * level
        assert (s.diff().abs() < 0.35).all() and s[(d.abs()).argmin()].abs() < 0.1
    assert (b[d > 1] > 0).all() and (masking.spread(torch.tensor([-3.1, 8.0]))[0] < -1000).all()


def test_silence_hides_the_threshold_in_quiet_alone():
    scale = masking.scale_of(RATE, torch.device("cpu"))
    found = masking.threshold_db(torch.zeros(2, 4000), RATE)
    torch.testing.assert_close(found, scale.quiet.expand_as(found), atol=1e-3, rtol=0)
    assert scale.quiet.min() == pytest.approx(-5.0, abs=0.2) and scale.quiet.max() <= masking.MOST_QUIET


def test_the_excess_is_the_mean_of_what_stands_above():
    batch = clips()
    change = 0.01 * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(0)) * batch.support
    db = masking.power_db(change, RATE) - batch.threshold
    for i in range(4):
        frames = -(-int(batch.length[i]) // 128)
        assert batch.excess(change)[i].item() == pytest.approx(db[i, :frames].clamp_min(0).mean().item(), rel=1e-5)
    alone = masking.threshold_db(batch.x[2:3], RATE)
    torch.testing.assert_close(alone, batch.threshold[2:3])


def test_the_gradient_is_finite_at_no_change_and_points_up_elsewhere():
    batch = clips()
    d = batch.null().requires_grad_()
    (g,) = torch.autograd.grad(batch.distance(d).sum(), d)
    assert torch.isfinite(g).all()
    d = (0.02 * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    value = batch.distance(d)
    (g,) = torch.autograd.grad(value.sum(), d)
    size = torch.linalg.vector_norm(g, dim=1, keepdim=True)
    assert torch.isfinite(g).all() and (size > 0).all()
    assert (batch.distance(d.detach() - 0.3 * g / size) < value).all()


@pytest.mark.parametrize("eps", [0.02, 1.0, 5.0])
def test_projections_are_valid_near_the_ball_and_keep_what_is_valid(eps):
    batch = clips(eps)
    for scale in (1e-4, 0.02, 2.0):
        p = scale * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(2))
        landed = batch.project(p)
        look = batch.look(landed)
        assert look.valid.all()
        assert torch.equal(batch.look(batch.project(look.form - batch.x)).form, look.form)
    assert (look.distance > 0.5 * eps).all(), "not scaled down further than the budget asks"
    drawn = batch.random(3)
    assert batch.check(drawn).all() and (batch.distance(drawn) > 0.3 * eps).all()
    assert torch.equal(batch.random(3, torch.tensor([2])), drawn[2:3]) or torch.allclose(
        batch.random(3, torch.tensor([2])), drawn[2:3], atol=1e-6
    )
    assert batch.widened(2.0).check(batch.project(p)).all()


def test_a_change_below_the_mask_is_one_all_the_same():
    batch = clips()
    p = batch.null()
    p[:, 1000] = 2 / 32768
    look = batch.look(p)
    assert look.valid.all() and not look.distance.any() and not look.null.any()
    assert batch.look(batch.null()).null.all()


def test_lanes_swap_their_masks():
    batch = clips()
    held = batch.threshold.clone()
    rules = {"norm": "mask", "eps": 1.0}
    other = MaskedBatch(batch.ids[3:], batch.labels[3:], batch.x[3:], batch.length[3:], rules, RATE)
    merged = batch.put(torch.tensor([1]), other)
    torch.testing.assert_close(merged.threshold, held[[0, 3, 2, 3]])
    assert torch.equal(batch.threshold, held)


def test_dbx_is_a_peak_below_the_clips_own():
    task = make_task("speech/synth-keyword", norm="dbx", dbx=-35.0)
    batch = task.samples("test", [0, 5])
    assert isinstance(batch, ClipBatch) and batch.norm == "linf"
    peak = batch.x.abs().amax(1)
    want = torch.floor(peak.double() * 10 ** (-35 / 20) * 32768 * (1 + 1e-6) + 1e-6) / 32768
    assert torch.equal(batch.reach, want.float())
    assert batch.check(batch.random(0)).all()
