"""Transforms in front of a victim: closed forms, and the gradients that each attacker has."""

import math
import os
import stat

import pytest
import torch

from advgym import AdvgymError, Victim, attack, make_task, registry
from advgym.agents.defenses.inputs.codec import coded, inverse, mdct
from advgym.agents.defenses.inputs.jpeg import dct, jpeg, rounded
from advgym.agents.defenses.inputs.total_variation import chambolle, divergence, gradient
from advgym.agents.defenses.windows import filtered, sinc

RATE = 8000
SPEECH = ["quantise", "mu-law", "median", "average", "low-pass", "band-pass", "resample", "codec",
          "spectral-subtraction", "wiener"]  # fmt: skip
IMAGE = ["bit-depth", "jpeg", "median", "average", "low-pass", "total-variation"]
ROUNDS = {"quantise", "mu-law", "codec", "bit-depth", "jpeg"}


def through(name, x, **settings):
    """What the victim sees of x."""
    identity = Victim(lambda x: x, access="gradients", name="identity")
    return registry.defense(name).defend(identity, None, **settings)(x)


def tone(hertz, samples=4000):
    return 0.5 * torch.sin(2 * math.pi * hertz / RATE * torch.arange(samples)).unsqueeze(0)


def power(x):
    return float(x[..., 500:-500].square().mean())


@pytest.mark.parametrize(("name", "settings"), [("low-pass", {}), ("resample", {}), ("average", {"size": 7})])
def test_a_low_tone_passes_and_a_high_one_does_not(name, settings):
    low, high = tone(200), tone(3200)
    assert power(through(name, low, **settings)) > 0.85 * power(low)
    assert power(through(name, high, **settings)) < 0.02 * power(high)


def test_a_band_pass_stops_both_ends():
    assert power(through("band-pass", tone(1000))) == pytest.approx(power(tone(1000)), rel=0.02)
    for hertz in (30, 3900):
        assert power(through("band-pass", tone(hertz))) < 0.05 * power(tone(hertz))


def test_filters_keep_a_constant_and_both_axes_are_alike():
    x = torch.full((2, 1, 9, 9), 0.3)
    assert torch.allclose(filtered(x, sinc(0.4, 15)), x, atol=1e-6)
    x = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    turned = filtered(x.transpose(2, 3), sinc(0.4, 15)).transpose(2, 3)
    assert torch.allclose(filtered(x, sinc(0.4, 15)), turned, atol=1e-6)


def test_the_median_removes_an_impulse_and_keeps_an_edge():
    x = torch.zeros(1, 50)
    x[0, 20] = 1
    assert not through("median", x).any()
    step = (torch.arange(50) > 20).float().unsqueeze(0)
    assert torch.equal(through("median", step, size=5), step)
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 3] = 1
    assert not through("median", image).any()


def test_quantise_rounds_to_steps_of_pcm():
    x = torch.linspace(-1, 1, 1001).unsqueeze(0)
    y = through("quantise", x, steps=256)
    assert torch.allclose(y * 128, (y * 128).round()) and (y - x).abs().max() <= 1 / 256 + 1e-6


def test_jpeg_at_the_best_quality_is_nearly_the_image():
    g = torch.Generator().manual_seed(0)
    for shape in ((3, 1, 8, 8), (2, 1, 13, 10), (2, 4, 9, 9)):
        x = torch.rand(shape, generator=g)
        assert (jpeg(x, 100) - x).abs().max() < 0.02
        assert (jpeg(x, 5) - x).abs().max() > 0.05
    smooth = torch.linspace(0, 1, 24).view(1, 1, 1, 24).expand(2, 3, 17, 24)
    assert (jpeg(smooth, 100) - smooth).abs().max() < 0.02 and jpeg(smooth, 30).shape == smooth.shape


def test_jpeg_is_what_a_jpeg_file_holds():
    """Against the codec of an image library, grey."""
    image, numpy, io = pytest.importorskip("PIL.Image"), pytest.importorskip("numpy"), pytest.importorskip("io")
    x = torch.rand(1, 1, 32, 24, generator=torch.Generator().manual_seed(1)).mul(255).round()
    for quality in (20, 50, 90):
        file = io.BytesIO()
        image.fromarray(x[0, 0].byte().numpy()).save(file, "JPEG", quality=quality)
        held = torch.from_numpy(numpy.array(image.open(file))).float()
        apart = (jpeg(x / 255, quality)[0, 0] * 255 - held).abs()
        assert (apart <= 1).float().mean() > 0.8 and apart.mean() < 1, (
            "its whole-number DCT rounds a few cells to the other side"
        )


def test_the_dct_is_orthonormal_and_the_cubic_is_flat_at_whole_numbers():
    assert torch.allclose(dct() @ dct().T, torch.eye(8), atol=1e-6)
    x = torch.tensor([1.0, 1.4, -0.6], requires_grad=True)
    y = rounded(x, True)
    (g,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y, x.round()) and torch.allclose(g, 3 * (x - x.round()).square())


def test_the_mdct_gives_back_what_it_was_given():
    x = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(inverse(mdct(x), 1000), x, atol=1e-5)
    noise = [float((coded(x, db) - x).square().mean() / x.square().mean()) for db in (10, 20, 40)]
    assert noise == pytest.approx([0.1, 0.01, 0.0001], rel=0.3), "as many dB below the signal as it was told"


def test_total_variation_falls_and_its_operators_are_adjoint():
    g = torch.Generator().manual_seed(0)
    u, p = torch.rand(2, 1, 7, 5, generator=g), torch.rand(2, 2, 1, 7, 5, generator=g)
    assert torch.allclose((gradient(u) * p).sum(), -(u * divergence(p)).sum(), atol=1e-4)
    y = chambolle(u, 0.2, 50)
    assert gradient(y).abs().sum() < 0.5 * gradient(u).abs().sum()
    assert torch.allclose(y.mean((2, 3)), u.mean((2, 3)), atol=1e-5), "the mean stays"
    flat = torch.full((1, 1, 6, 6), 0.4)
    assert torch.allclose(chambolle(flat, 0.2, 20), flat)


@pytest.mark.parametrize("name", ["wiener", "spectral-subtraction"])
def test_noise_is_reduced_and_silence_stays(name):
    noise = 0.05 * torch.randn(1, 6000, generator=torch.Generator().manual_seed(0))
    x = torch.cat([noise[:, :3000], tone(500, 3000) + noise[:, 3000:]], 1)
    y = through(name, x)
    assert power(y[:, :3000]) < 0.7 * power(x[:, :3000])
    assert power(y[:, 3000:]) > 0.7 * power(tone(500, 3000))
    assert not through(name, torch.zeros(1, 3000)).any()
    padded = torch.cat([x, torch.zeros(1, 3000)], 1)
    assert power(through(name, padded)[:, :3000]) < 0.7 * power(x[:, :3000]), "padding is no estimate of noise"


@pytest.mark.parametrize("name", sorted({*SPEECH, *IMAGE}))
def test_gradients_of_both_attackers(name):
    shape = (3, 1, 8, 8) if name in IMAGE and name not in ("median", "average", "low-pass") else (3, 2000)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)).mul(0.9).requires_grad_()
    victim = Victim(lambda x: (x.flatten(1) ** 2)[:, :64], access="gradients")
    grads = []
    for adaptive in (True, False):
        y = registry.defense(name).defend(victim, None, adaptive=adaptive)(x)
        grads.append(torch.autograd.grad(y.sum(), x)[0])
        assert adaptive or torch.equal(y, registry.defense(name).defend(victim, None)(x))
    assert grads[0].isfinite().all() and grads[0].any()
    own = torch.autograd.grad(victim(x).sum(), x)[0]
    assert torch.equal(grads[1], torch.zeros_like(x) if name in ROUNDS else own)


@pytest.mark.parametrize("name", SPEECH)
def test_a_clip_does_not_depend_on_its_neighbours(name):
    x = 0.3 * torch.randn(3, 3000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(through(name, x)[1:2], through(name, x[1:2]), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [("median", {"size": 4}, "odd"), ("average", {"size": 2}, "odd"), ("low-pass", {"taps": 8}, "odd"),
     ("low-pass", {"cutoff": 0.0}, "cutoff"), ("band-pass", {"low": 3000.0, "high": 300.0}, "low < high"),
     ("jpeg", {"quality": 0}, "quality"), ("codec", {"format": "flac"}, "format")],
)  # fmt: skip
def test_wrong_settings_say_so(name, settings, words):
    with pytest.raises(AdvgymError, match=words):
        through(name, torch.zeros(1, 100), **settings)


def test_real_codecs_need_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AdvgymError, match="ffmpeg"):
        through("codec", torch.zeros(1, 100), format="mp3")


def test_real_codecs_are_called_and_aligned(tmp_path, monkeypatch):
    """A program in ffmpeg's place that delays what it is given by 100 samples, once of two calls."""
    fake = tmp_path / "ffmpeg"
    fake.write_text('#!/bin/sh\ncase "$*" in *libmp3lame*) head -c 400 /dev/zero; cat;; *) cat;; esac\n')
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    x = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = through("codec", x, format="mp3")
    assert torch.equal(y, x) and (torch.autograd.grad(y.sum(), x)[0] == 1).all()
    fake.write_text("#!/bin/sh\necho no such coder >&2; exit 1\n")
    with pytest.raises(AdvgymError, match="no such coder"):
        through("codec", x, format="mp3")


@pytest.mark.parametrize(
    ("task", "name"), [("image/digits-linf", "jpeg"), ("speech/synth-keyword", "quantise"),
                       ("speech/synth-keyword", "codec")])  # fmt: skip
def test_an_adaptive_attacker_gets_through(task, name):
    options = {"episodes": 16, "lanes": 16, "clean": 16, "queries": 25, "gradients": 25}
    plain, adaptive = (
        attack(task, "pgd", defenses=[(name, {"adaptive": value})], **options).robust_accuracy
        for value in (False, True)
    )
    assert plain > adaptive + 0.2


def test_the_reformer_learns_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    settings = {"samples": 300, "epochs": 30, "eps": 0.1}
    task = make_task("image/digits-linf", defenses=[("reformer", settings)])
    batch = task.samples("test", list(range(100)))
    assert (task.victim(batch.x).argmax(1) == batch.labels).float().mean() > 0.5
    (file,) = tmp_path.glob("victims/reformer-*")
    at = file.stat().st_mtime_ns
    make_task("image/digits-linf", defenses=[("reformer", settings)])
    assert file.stat().st_mtime_ns == at
