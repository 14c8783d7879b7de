"""Shipped victims are what their recipes say, and as good as their cards say."""

import json

import pytest
import torch

from advgym import registry
from advgym.core.task import load_victim, make_task
from advgym.envs.speech.measures.errors import corpus_wer
from advgym.envs.speech.models.nets import CtcNet, KeywordCnn, LogMel
from advgym.envs.speech.victims.recipes import WEIGHTS, augment

BUDGET = {"synth-keyword-cnn": 250, "synth-keyword-m5": 110, "synth-ctc": 850, "synth-ctc-small": 300}  # kB


@pytest.mark.parametrize("name", BUDGET)
def test_shipped_weights_are_small_and_of_this_recipe(name):
    path = WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size <= BUDGET[name] * 1000
    card, (_, row) = load_victim(name).card, registry.victim_row(name)
    row = {k: v for k, v in row.items() if k not in ("make", "title")}
    assert row.items() <= card["recipe"].items() and json.dumps(card)


@torch.no_grad()
def measured(name: str, task_name: str) -> tuple[float, float]:
    """(share right, corpus WER or error rate) over the test split."""
    victim = load_victim(name)
    task = make_task(task_name, victim=victim)
    batch = task.samples("test", list(range(task.sizes["test"])))
    scores = torch.cat([victim(part) for part in torch.split(batch.x, 64)])
    right = task.goal.right(scores, batch.labels).float().mean().item()
    assert victim.card["clean_accuracy"] == pytest.approx(right, abs=0.011)
    assert victim.card["samples"] == task.sizes["test"]
    output = task.goal.output(scores)
    if output.dim() == 1:
        return right, 1 - right
    wer = corpus_wer(output, batch.labels)
    assert victim.card["wer"] == pytest.approx(wer, abs=0.01)
    return right, wer


@pytest.mark.parametrize("name", ["synth-keyword-cnn", "synth-keyword-m5"])
def test_synthetic_keywords(name):
    assert measured(name, "speech/synth-keyword")[0] >= 0.98


@pytest.mark.parametrize("name", ["synth-ctc", "synth-ctc-small"])
def test_synthetic_transcripts(name):
    assert measured(name, "speech/synth-transcribe")[1] <= 0.02


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("fsdd-keyword-cnn", 0.95), ("fsdd-keyword-m5", 0.93)])
def test_free_spoken_digits(data_dir, name, least):
    assert measured(name, "speech/fsdd-keyword")[0] >= least


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("fsdd-ctc", 0.05), ("fsdd-ctc-small", 0.08)])
def test_free_spoken_transcripts(data_dir, name, most):
    assert measured(name, "speech/fsdd-transcribe")[1] <= most


def test_the_front_end_is_finite_on_silence_and_repeats():
    front = LogMel()
    x = torch.zeros(2, 800, requires_grad=True)
    features = front(x)
    assert features.shape == (2, 40, 11)
    (g,) = torch.autograd.grad(features.sum(), x)
    assert torch.isfinite(features).all() and torch.isfinite(g).all()
    noise = torch.randn(2, 800, generator=torch.Generator().manual_seed(0))
    assert torch.equal(front(noise), front(noise))
    assert torch.isfinite(front(1e6 * noise)).all()


def test_nets_take_any_length():
    for samples in (2000, 6400, 16000):
        assert KeywordCnn(channels=8).eval()(torch.zeros(2, samples)).shape == (2, 10)
        scores = CtcNet(channels=8, layers=2).eval()(torch.zeros(2, samples))
        assert scores.shape[::2] == (2, 17) and 50 * samples / 8000 <= scores.shape[1] <= 50 * samples / 8000 + 2
        torch.testing.assert_close(scores.exp().sum(2), torch.ones(scores.shape[:2]))


def test_augmentation_keeps_the_scale():
    x = torch.full((50, 400), 0.5)
    y = augment(x, 100)
    assert y.shape == x.shape and y.abs().max() < 0.6
    assert (y[:, 200] > 0.15).all() and (y.abs() < 0.1).any()
