"""Speaker identification and speaker verification: recipes, and the rates that a verifier is judged by."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.data import speakers
from advgym.envs.speech.data.clips import pack
from advgym.envs.speech.models.nets import SpeakerNet, Verifier
from advgym.envs.speech.victims.recipes import answers, fit, victim_of

MARGIN, SHARPNESS = 0.2, 20.0  # of the additive-margin softmax (Wang et al. 2018)
ANSWERS = ["reject", "accept"]


# -- rates ----------------------------------------------------------------------------------------------------------
def error_rates(scores: Tensor, genuine: Tensor, threshold: float) -> tuple[float, float]:
    """(false acceptance rate, false rejection rate) when scores above the threshold are accepted.

    Args:
        scores: (n,).
        genuine: bool (n,): whose claim is true.
    """
    accepted = scores > threshold
    return float(accepted[~genuine].double().mean()), float((~accepted[genuine]).double().mean())


def equal_error(scores: Tensor, genuine: Tensor) -> tuple[float, float]:
    """(equal error rate, threshold): where false acceptances and false rejections are nearest to equally frequent.

    The rate is the mean of both there; the threshold lies halfway between two neighbouring scores. Ties between
    thresholds go to the lowest mean, then to the lowest threshold.

    Raises:
        ValueError: without trials of both kinds.
    """
    genuine = genuine.bool()
    own, other = scores[genuine].double(), scores[~genuine].double()
    if not len(own) or not len(other):
        raise ValueError("an equal error rate takes genuine trials and impostors")
    every = torch.unique(torch.cat([own, other]))  # ascending
    cuts = torch.cat([every[:1] - 1, (every[1:] + every[:-1]) / 2, every[-1:] + 1])
    accepted = 1 - torch.searchsorted(other.sort().values, cuts, right=True) / len(other)
    rejected = torch.searchsorted(own.sort().values, cuts, right=True) / len(own)
    gap, mean = (accepted - rejected).abs(), (accepted + rejected) / 2
    best = int((gap * 1e6 + mean).argmin())
    return float(mean[best]), float(cuts[best])


# -- victims --------------------------------------------------------------------------------------------------------
def identifier(name: str, dataset: str, epochs: int, rate: float = 4e-3, seed: int = 0, **size: int) -> Victim:
    """Who speaks, (n, samples) -> (n, speakers); its card has their names and the accuracy on the split "test"."""
    known = speakers.names(dataset)

    def train(module: nn.Module) -> dict[str, Any]:
        clips = speakers.speakers(dataset, "train")
        fit(module, clips.wave, clips.labels, nn.CrossEntropyLoss(), epochs=epochs, rate=rate, shift=800)
        test = speakers.speakers(dataset, "test")
        right = answers(module, test.wave).argmax(1) == test.labels
        return {"clean_accuracy": float(right.float().mean()), "split": "test", "samples": len(test)}

    recipe = {"maker": "speech-speaker-1", "epochs": epochs, "rate": rate, "seed": seed, "speakers": known,
              "dataset": dataset, **data.content(dataset), **size}  # fmt: skip
    victim = victim_of(name, lambda: SpeakerNet(len(known), **size), train, recipe)
    return victim.like(victim.model, card={**victim.card, "names": known})


def verifier(
    name: str, dataset: str, epochs: int, enrolled: str = "", rate: float = 4e-3, seed: int = 0, **size: int
) -> Victim:
    """Whether the enrolled speaker speaks, (n, samples) -> (n, 2) logits of [reject, accept].

    The net learns to tell the training voices apart; a speaker is enrolled as the mean of its embeddings; the threshold
    is that of the equal error rate over trials of the part "dev", in which every speaker is claimed. The card has that
    rate (`eer_dev`) and `threshold`; on "test" the rate anew (`eer`), `false_accept` and `false_reject` at the
    threshold; the accuracy on the enrolled speaker's own trials; and whether speakers are `seen` in training.

    Args:
        enrolled: the speaker to be; "" for the dataset's first.
    """
    who = speakers.enrolled(dataset, enrolled or None)

    def train(module: nn.Module) -> dict[str, Any]:
        assert isinstance(module, Verifier)
        _learn(module, dataset, epochs, rate)
        scores, genuine = all_claims(module, dataset, "dev")
        eer_dev, threshold = equal_error(scores, genuine)
        module.threshold.fill_(threshold)
        module.enrolled.copy_(_enrol(module, dataset, "test", who))
        scores, genuine = all_claims(module, dataset, "test")
        accept, reject = error_rates(scores, genuine, threshold)
        test = speakers.trials(dataset, "test", who)
        right = answers(module, test.wave).argmax(1) == test.labels
        return {
            "clean_accuracy": float(right.float().mean()), "threshold": threshold, "eer_dev": eer_dev,
            "eer": equal_error(scores, genuine)[0], "false_accept": accept, "false_reject": reject,
            "claims": len(scores), "seen": dataset != "synth-digits", "split": "test", "samples": len(test),
        }  # fmt: skip

    recipe = {"maker": "speech-verify-1", "epochs": epochs, "rate": rate, "seed": seed, "enrolled": who,
              "dataset": dataset, **data.content(dataset), **size}  # fmt: skip
    victim = victim_of(name, lambda: Verifier(**size), train, recipe)
    return victim.like(victim.model, card={**victim.card, "names": ANSWERS, "enrolled": who})


def _waves(words: tuple[data.Word, ...], dataset: str) -> Tensor:
    return pack([w.wave for w in words], data.samples_of(dataset, data.WORD_SAMPLES), [""] * len(words)).wave


def _learn(module: Verifier, dataset: str, epochs: int, rate: float) -> None:
    words = speakers.verification_words(dataset, "train")
    known = sorted({w.speaker for w in words})
    labels = torch.tensor([known.index(w.speaker) for w in words])
    size = module.enrolled.shape[0]
    pupil = _Margin(module, len(known), size)

    def loss(cosine: Tensor, y: Tensor) -> Tensor:
        own = F.one_hot(y, len(known)).bool()
        return F.cross_entropy(SHARPNESS * torch.where(own, cosine - MARGIN, cosine), y)

    fit(pupil, _waves(words, dataset), labels, loss, epochs=epochs, rate=rate, shift=800)


class _Margin(nn.Module):
    """Cosines with a learnt direction for each training speaker."""

    def __init__(self, verifier: Verifier, count: int, size: int) -> None:
        super().__init__()
        self.verifier = verifier
        self.directions = nn.Parameter(torch.randn(count, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.verifier.embed(x) @ F.normalize(self.directions, dim=1).T


@torch.no_grad()
def _embeddings(module: Verifier, wave: Tensor) -> Tensor:
    return torch.cat([module.embed(part / data.LEVELS) for part in wave.split(128)])


def _models(module: Verifier, dataset: str, part: str) -> tuple[list[str], Tensor]:
    """The enrolled embedding of every speaker of a part's trials, (speakers, size)."""
    words = speakers.enrolment_words(dataset, part)
    known, rows = speakers.by_speaker(words, _embeddings(module, _waves(words, dataset)))
    return known, F.normalize(torch.stack([r.mean(0) for r in rows]), dim=1)


def _enrol(module: Verifier, dataset: str, part: str, speaker: str) -> Tensor:
    known, models = _models(module, dataset, part)
    return models[known.index(speaker)]


def all_claims(module: Verifier, dataset: str, part: str) -> tuple[Tensor, Tensor]:
    """(cosines, whose claim is true) of every word of a part, claimed by every enrolled speaker of it."""
    words = speakers.verification_words(dataset, part)
    known, models = _models(module, dataset, part)
    cosine = _embeddings(module, _waves(words, dataset)) @ models.T
    genuine = torch.tensor([[w.speaker == name for name in known] for w in words])
    return cosine.flatten(), genuine.flatten()
