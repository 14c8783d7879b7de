"""Recipes of the speech victims: each names its data, its net and its schedule, and trains in a minute or so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.envs.speech import symbols
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.goals.transcripts import CtcGoal
from advgym.envs.speech.measures.errors import cer, corpus_wer
from advgym.envs.speech.models.nets import M5, CtcNet, KeywordCnn
from advgym.lib.fit import descend
from advgym.lib.weights import load_or_train

WEIGHTS = Path(__file__).parents[1] / "weights"
NETS: dict[str, Callable[..., nn.Module]] = {"cnn": KeywordCnn, "m5": M5}
TRAIN_VOICES, TAKES = 80, 2  # synthetic voices and takes that victims learn from


def augment(x: Tensor, shift: int) -> Tensor:
    """Waveforms (n, samples) moved by up to `shift` samples, at half to full loudness, in a little white noise."""
    n, samples = x.shape
    moves = torch.randint(-shift, shift + 1, (n, 1))
    index = torch.arange(samples) - moves
    x = torch.where((index >= 0) & (index < samples), x.gather(1, index.clamp(0, samples - 1)), 0.0)
    gain = 0.5 + 0.5 * torch.rand(n, 1)
    return x * gain + torch.randn(n, samples) * 0.01 * torch.rand(n, 1).square()


def fit(
    net: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor], *, epochs: int, rate: float,
    shift: int, batch: int = 64,
) -> None:  # fmt: skip
    """AdamW with one cycle of the learning rate over augmented int16 waveforms (n, samples)."""
    batch = min(batch, len(x))
    steps = epochs * (len(x) // batch)
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.2)

    def mean(rows: Tensor) -> Tensor:
        return loss(net(augment(x[rows] / data.LEVELS, shift)), y[rows]).mean()

    orders = (torch.randperm(len(x))[: len(x) // batch * batch].split(batch) for _ in range(epochs))
    descend(net, mean, orders, optimiser, schedule=schedule, clip=5.0)


@torch.no_grad()
def answers(net: nn.Module, wave: Tensor) -> Tensor:
    """Scores of int16 waveforms."""
    return torch.cat([net(part / data.LEVELS) for part in wave.split(128)])


def keyword(name: str, dataset: str, net: str, epochs: int, rate: float = 4e-3, seed: int = 0, **size: int) -> Victim:
    """A keyword classifier (n, samples) -> (n, 10); its card has the accuracy on the test split."""

    def train(module: nn.Module) -> dict[str, Any]:
        clips = data.keywords(dataset, "train")
        if dataset == "synth-digits":
            words = data.synth_words("train", TRAIN_VOICES, TAKES)
            digits = [w.digit for w in words]
            clips = data.pack([w.wave for w in words], clips.wave.shape[1], [""] * len(words), digits)
        fit(module, clips.wave, clips.labels, nn.CrossEntropyLoss(), epochs=epochs, rate=rate, shift=800)
        test = data.keywords(dataset, "test")
        right = answers(module, test.wave).argmax(1) == test.labels
        return {"clean_accuracy": float(right.float().mean()), "split": "test", "samples": len(test)}

    recipe = {
        "maker": "speech-keyword-1",
        "net": net,
        "epochs": epochs,
        "rate": rate,
        "seed": seed,
        **words_of(dataset),
    }
    return victim_of(name, lambda: NETS[net](**size), train, {**recipe, **size})


def transcriber(
    name: str, dataset: str, epochs: int, lines: int, rate: float = 4e-3, seed: int = 0, **size: int
) -> Victim:
    """A CTC recogniser (n, samples) -> (n, frames, 17), trained on `lines` random utterances.

    Its card has, over the test split: clean_accuracy (the share that is less than half wrong, so attacked), the
    corpus' WER and CER, and the share transcribed exactly.
    """

    def train(module: nn.Module) -> dict[str, Any]:
        samples = data.utterances(dataset, "test").wave.shape[1]
        if dataset == "synth-digits":
            words = data.synth_words("train", TRAIN_VOICES, TAKES)
        else:
            words = data.source_words(dataset, "train")
        waves, texts = data.connect(words, lines, samples, 100 + seed)
        frames = module.eval()(torch.zeros(1, samples)).shape[1]
        goal = CtcGoal(frames)
        labels = torch.tensor([symbols.encode(t, width=frames) for t in texts])
        fit(
            module,
            data.pack(waves, samples, texts).wave,
            labels,
            goal.loss,
            epochs=epochs,
            rate=rate,
            shift=400,
            batch=32,
        )
        test = data.utterances(dataset, "test")
        truth = torch.tensor([symbols.encode(t, width=frames) for t in test.texts])
        scores = answers(module, test.wave)
        output = goal.output(scores)
        return {
            "clean_accuracy": float(goal.right(scores, truth).float().mean()),
            "wer": corpus_wer(output, truth),
            "cer": float(cer(output, truth).mean()),
            "exact": float((output == truth).all(1).float().mean()),
            "split": "test",
            "samples": len(test),
        }

    recipe = {
        "maker": "speech-ctc-1",
        "epochs": epochs,
        "lines": lines,
        "rate": rate,
        "seed": seed,
        **words_of(dataset),
    }
    recipe["longest"] = data.LONGEST
    return victim_of(name, lambda: CtcNet(**size), train, {**recipe, **size})


def words_of(dataset: str) -> dict[str, Any]:
    """What a recipe says of its words."""
    made = {"voices": TRAIN_VOICES, "takes": TAKES} if dataset == "synth-digits" else data.content(dataset)
    return {"dataset": dataset, **made}


def victim_of(name: str, build: Callable[[], nn.Module], train: Any, recipe: dict[str, Any]) -> Victim:
    """The victim of a recipe, shipped, cached or trained now; it says its rate in Hz."""
    module, card = load_or_train(name, build, train, recipe=recipe, shipped=WEIGHTS / f"{name}.safetensors")
    return Victim(module, name=name, access="gradients", card={**card, "rate": data.RATE})
