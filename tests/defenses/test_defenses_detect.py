"""Detectors: thresholds by a false-positive rate, one risk, and the gradient of an attacker who knows it."""

import pytest
import torch
import toy

from advgym import AdvgymError, Victim, attack, make_task
from advgym.agents.defenses.detect.distribution import characteristics
from advgym.agents.defenses.detect.magnet import divergence
from advgym.agents.defenses.detect.speech_temporal_dependency import extent
from advgym.agents.defenses.detectors import Risk, Statistics, threshold_at, watched
from advgym.agents.defenses.learning import clean_inputs

SMALL = {"magnet": {"samples": 300, "epochs": 30, "rate": 0.1}, "distribution": {"samples": 100, "rate": 0.1},
         "temporal-dependency": {"samples": 40, "rate": 0.1}}  # fmt: skip
TABLE = [("magnet", "image/digits-linf"), ("distribution", "image/digits-linf"),
         ("distribution", "speech/synth-keyword"), ("distribution", "speech/synth-transcribe"),
         ("temporal-dependency", "speech/synth-transcribe")]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVGYM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.5])
def test_no_more_clean_rows_than_the_rate_reach_a_threshold(rate):
    e = torch.rand(137, 3, generator=torch.Generator().manual_seed(0))
    e[:60, 2] = 1.0  # ties
    limit = threshold_at(rate, e)
    assert ((e >= limit).float().mean(0) <= rate).all()
    assert (e[:, 0] >= limit[0]).sum() == int(rate * 137)


@pytest.mark.parametrize(("name", "task"), TABLE)
def test_few_clean_samples_are_found(name, task):
    made = make_task(task, defenses=[(name, SMALL[name])])
    x = clean_inputs(made, SMALL[name]["samples"])
    risk = made.victim.risk(x)
    assert ((risk >= 0) & (risk <= 1)).all()
    assert (risk >= made.victim.threshold).float().mean() <= SMALL[name]["rate"]
    assert torch.allclose(risk[3:5], made.victim.risk(x[3:5]), atol=1e-4)


def test_noise_is_found():
    made = make_task("image/digits-linf", defenses=[("magnet", SMALL["magnet"])])
    x = made.samples("test", list(range(50))).x
    noisy = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    assert (made.victim.risk(noisy) >= 0.5).float().mean() > 0.9 > (made.victim.risk(x) >= 0.5).float().mean() + 0.6


class Height(Statistics):
    def forward(self, x):
        return x[:, :1].abs()


def test_the_gradient_turns_to_the_risk_once_the_victim_is_fooled():
    layer = toy.linear()
    victim = Victim(layer)
    x = toy.samples()
    risk = Risk(Height(victim), x, 0.1)
    found = {value: watched(victim, risk, "height", adaptive=value) for value in (True, False)}
    at = x.clone().requires_grad_()
    for wanted in range(toy.CLASSES):
        grads = {}
        for value, guard in found.items():
            scores = torch.log_softmax(guard(at), 1)
            assert torch.equal(guard(at), layer(at))
            (grads[value],) = torch.autograd.grad(scores[:, wanted].sum(), at)
        turned = (layer(x).argmax(1) == wanted) & (risk(x) >= 0.49)
        assert torch.equal(grads[True][~turned], grads[False][~turned])
        if turned.any():
            g = grads[True][turned]
            assert not g[:, 1:].any() and (g[:, 0] * x[turned][:, 0] < 0).all(), "towards a lower risk alone"
            assert torch.allclose(g.norm(dim=1), grads[False][turned].norm(dim=1), rtol=1e-4)


def test_two_detectors_both_count():
    victim = Victim(toy.linear(), risk=lambda x: (x[:, 1] > 0.5).float() * 0.3, threshold=0.2)
    both = watched(victim, Risk(Height(victim), toy.samples(), 0.0), "height", adaptive=True)
    x = torch.zeros(3, toy.samples().shape[1])
    x[1, 1], x[2, 0] = 1.0, 1e6
    assert (both.risk(x) >= both.threshold).tolist() == [False, True, True]


@pytest.mark.parametrize(("name", "task"), [TABLE[0], TABLE[2], TABLE[4]])
def test_a_watched_task_is_attacked(name, task):
    result = attack(task, "pgd", episodes=4, lanes=4, clean=4, queries=5, gradients=5, defenses=[(name, SMALL[name])])
    assert result.defense == name and 0 <= result.robust_accuracy <= 1


def test_closed_forms():
    a = torch.log(torch.tensor([[0.5, 0.5, 1e-9]]))
    assert divergence(a, a).abs().max() < 1e-6
    b = torch.log(torch.tensor([[1e-9, 1e-9, 1.0]]))
    assert divergence(a, b) == pytest.approx(0.6931, abs=1e-3), "apart: log 2"
    told = characteristics(torch.zeros(2, 4))
    assert told[0].tolist() == pytest.approx([1.3863, 0.25, 0.25], abs=1e-4)
    frames = torch.zeros(1, 2, 4)
    frames[0, 0, 0] = frames[0, 1, 1] = 50
    assert characteristics(frames)[0, -2:].tolist() == pytest.approx([0.6931, 0.6931], abs=1e-3)
    assert extent(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).tolist() == [2, 1]


def test_tasks_that_cannot_be_watched_say_so():
    with pytest.raises(AdvgymError, match="no transcripts"):
        make_task("speech/synth-keyword", defenses=["temporal-dependency"])
    with pytest.raises(AdvgymError, match="train"):
        x = torch.rand(4, 1, 8, 8)
        make_task("image/linf", victim=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)),
                  samples=[(image, 0) for image in x], defenses=["distribution"])  # fmt: skip
