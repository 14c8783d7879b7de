"""A radius below a step of the lattice, or one that reaches any input, is no threat model: refused by name."""

import numpy as np
import pytest
import torch

from advgym import AdvgymError, DataError, attack, make_task
from advgym.lib.given import check_radius

NAN, INF = float("nan"), float("inf")


def tone(seconds=0.05, loud=0.3):
    return (loud * np.sin(np.arange(int(8000 * seconds)) / 5)).astype(np.float32)


def crossings(x):
    return torch.stack([x.abs().sum(1), x.sum(1)], 1)


@pytest.mark.parametrize(
    ("task", "options", "says"),
    [("image/digits-linf", {"eps": 8}, "eps='8/255'"), ("image/digits-linf", {"eps": 1}, "reaches every input"),
     ("image/digits-linf", {"eps": -0.1}, "above 0"), ("image/digits-linf", {"eps": INF}, "8/255"),
     ("image/digits-linf", {"eps": NAN}, "8/255"), ("image/digits-linf", {"eps": "1/255"}, "one step"),
     ("image/digits-l2", {"eps": 8}, "reaches every input"), ("image/digits-l2", {"eps": 0.01}, "one step"),
     ("image/digits-pixel", {"pixels": 64}, "An image has 64 values"), ("image/digits-pixel", {"pixels": 0}, "from 1"),
     ("image/digits-pixel", {"pixels": 2.5}, "whole"),
     ("speech/synth-keyword", {"eps": 655}, "eps=0.02"), ("speech/synth-keyword", {"eps": 1}, "reaches every input"),
     ("speech/synth-keyword", {"eps": -1}, "16-bit step"), ("speech/synth-keyword", {"eps": NAN}, "16-bit step"),
     ("speech/synth-keyword", {"norm": "l2", "eps": 655}, "reaches every input"),
     ("speech/synth-keyword", {"norm": "snr", "snr": -20}, "louder than the clip"),
     ("speech/synth-keyword", {"norm": "snr", "snr": NAN}, "dB"),
     ("text/synth-wordswap", {"edits": 0}, "leave no limit"), ("text/synth-wordswap", {"edits": -1}, "at least 0"),
     ("text/synth-wordswap", {"edits": True}, "whole"), ("text/synth-wordswap", {"share": NAN}, "fraction"),
     ("text/synth-wordswap", {"share": 1.5}, "fraction"), ("text/synth-charswap", {"edits": 0}, "leave no limit"),
     ("graph/karate-edge", {"edits": 0}, "edits"), ("graph/karate-edge", {"edits": INF}, "edits"),
     ("graph/karate-edge", {"edits": 1000}, "reaches every input"), ("graph/sbm-feature", {"edits": NAN}, "edits"),
     ("graph/karate-global", {"eps": 0}, "share of the edges"), ("graph/karate-global", {"eps": NAN}, "share"),
     ("graph/sbm-continuous", {"eps": 50}, "reaches every input"), ("graph/sbm-continuous", {"eps": -1}, "above 0"),
     ("graph/sbm-continuous", {"eps": NAN}, "above 0")],
)  # fmt: skip
def test_radii_that_are_none(task, options, says):
    with pytest.raises(AdvgymError, match=says):
        made = make_task(task, **options)
        made.samples("test", [0])


@pytest.mark.parametrize("options", [{"eps": "8/255", "lattice": 255}, {"eps": 0.999}, {"eps": "1/16"}])
def test_radii_that_are(options):
    assert float(make_task("image/digits-linf", **options).samples("test", [0]).reach) > 0


def test_clips_that_hide_no_noise_are_named():
    silence = np.zeros(400, np.float32)
    given = {"samples": [(tone(), 0), (silence, 1)], "victim": crossings}
    with pytest.raises(DataError, match="samples 1: silent for snr=20"):
        make_task("speech/keyword", norm="snr", **given)
    with pytest.raises(DataError, match="samples 0, 1: too soft for snr=300"):
        make_task("speech/keyword", norm="snr", snr=300, **given)
    assert make_task("speech/keyword", norm="linf", **given).sizes["test"] == 2
    task = make_task("speech/synth-keyword", norm="snr", snr=300)
    with pytest.raises(DataError, match="clips of split 'test'"):
        attack(task, "noise", episodes=1)


# -- float noise at the edge of the box ---------------------------------------------------------------------------
def test_float_noise_is_no_error():
    x = torch.rand(1, 5, 6)
    x[0, 0, 0], x[0, 0, 1] = -6e-8, 1 + 1e-7
    task = make_task("image/linf", victim=lambda x: x.flatten(1)[:, :3], samples=[(x, 0), (x, 1)], lattice=0)
    kept = task.samples("test", [0]).x
    assert float(kept[0, 0, 0, 0]) == 0 and float(kept[0, 0, 0, 1]) == 1 and torch.equal(kept[0, 0, 1:], x[0, 1:])
    loud = tone() * 0 + 1.0000005
    assert make_task("speech/keyword", samples=[(loud, 0), (tone(), 1)], victim=crossings).sizes["test"] == 2


@pytest.mark.parametrize("off", [-1e-4, NAN, 1.1])
def test_more_than_noise_names_the_sample(off):
    x = torch.rand(1, 5, 6)
    bad = x.clone()
    bad[0, 0, 0] = off
    with pytest.raises(DataError, match="sample 1 has pixels"):
        make_task("image/linf", victim=lambda x: x.flatten(1)[:, :3], samples=[(x, 0), (bad, 1)])
    wave = tone()
    wave[3] = 2 * off if off < 0 else off
    if abs(float(wave[3])) > 1 or off != off:
        with pytest.raises(DataError, match=r"samples\[1\] has values up to"):
            make_task("speech/keyword", samples=[(tone(), 0), (wave, 1)], victim=crossings)


def test_the_shared_check_says_what_is_allowed():
    for value in (0, -1, NAN, INF):
        with pytest.raises(AdvgymError, match="eps is above 0"):
            check_radius("eps", value)
    with pytest.raises(AdvgymError, match=r"at least 0\.1"):
        check_radius("eps", 0.05, step=0.1)
    assert check_radius("eps", 0.1, step=0.1, most=1) == 0.1
