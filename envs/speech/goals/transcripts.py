"""Goals against a recogniser: wreck the transcript, have it say a text, have a phrase in it, or have it say nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from advgym.core import rng
from advgym.core.goals import Goal
from advgym.envs.speech import symbols
from advgym.envs.speech.goals.decode import ctc_loss, greedy, needed, phrase_loss
from advgym.envs.speech.measures.errors import edit_distance, lengths, phrase_distance, wer, word_errors
from advgym.errors import AdvgymError, unknown

GOALS = ("untargeted", "targeted", "phrase", "silence")
DECODE = ("greedy", "beam")
HALF = 0.5  # word error rate from which on the victim has a clip wrong


class CtcGoal(Goal):
    """Goals on transcripts; scores (frames, symbols) are log-probabilities (or logits) per frame, blank 0.

    Untargeted: at least `wer` word errors for each of the N words of the victim's own clean transcript; the objective is
    WER - wer + 1/(2N), or WER - (the errors that are needed - 1)/N where that is less. Targeted: exactly the target's text
    of L symbols; the objective is -CER + 1/(2L). Phrase: the target's words stand somewhere in the transcript; the
    objective is 1/(2L) less the symbol edits to that, over L. Silence: nothing is said; -symbols + 1/2, over the clean ones.

    Args:
        frames: T, also the width of outputs and labels.
        alphabet: symbol i is alphabet[i - 1].
        name: "untargeted", "targeted", "phrase" or "silence".
        vocabulary: words that default targets are made of.
        wer: the word error rate that an untargeted attack must reach.
        decode: "greedy", or "beam" (prefix beam search).
    """

    def __init__(
        self,
        frames: int,
        alphabet: str = symbols.ALPHABET,
        name: str = "untargeted",
        vocabulary: tuple[str, ...] = symbols.DIGITS,
        wer: float = HALF,
        decode: str = "greedy",
    ) -> None:
        if name not in GOALS:
            raise unknown("goal of a transcript", name, GOALS)
        if decode not in DECODE:
            raise unknown("decode", decode, DECODE)
        self.name, self.needs_target = name, name in ("targeted", "phrase")
        self.alphabet, self.space, self.vocabulary = alphabet, alphabet.find(" ") + 1, vocabulary
        self.wer, self.decode = wer, decode
        self.outputs = len(alphabet) + 1
        self.scores_shape, self.output_shape = (frames, self.outputs), (frames,)

    def output(self, scores: Tensor) -> Tensor:
        return _decoder(self.decode)(scores, self.space)

    def met(self, output: Tensor, ref: Tensor, target: Tensor | None) -> Tensor:
        return self._objective(output, ref, target) > 0

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        # What is already half wrong would be a success at no cost.
        return wer(self.output(scores), labels, self.space) < HALF

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        objective = self._objective(self.output(scores.detach()), ref, target)
        if self.name == "silence":
            surrogate = -ctc_loss(scores, torch.full_like(ref, -1))
        elif target is not None and self.needs_target:
            surrogate = -(
                ctc_loss(scores, target) if self.name == "targeted" else phrase_loss(scores, target, self.space)
            )
        else:
            surrogate = ctc_loss(scores, ref)
        broken = scores.detach().isnan().flatten(1).any(1)  # argmax would read NaN as a symbol
        return torch.where(broken, -1.0, objective), surrogate

    def _objective(self, said: Tensor, ref: Tensor, target: Tensor | None) -> Tensor:
        """Of transcripts, float32 (n,): above 0 exactly where the goal is reached."""
        if self.name == "silence":
            return (0.5 - lengths(said)) / lengths(ref).clamp_min(1)
        if target is not None and self.needs_target:
            exact = self.name == "targeted"
            edits = edit_distance(said, target) if exact else phrase_distance(said, target, self.space)
            return (0.5 - edits) / lengths(target).clamp_min(1)
        edits, count = word_errors(said, ref, self.space)
        count = count.clamp_min(1)
        wanted = self.wer * count
        most = torch.maximum(wanted - 0.5, (wanted - 1e-6).ceil() - 1)  # edits that are one too few, at least
        return (edits - most) / count

    def targets(self, seed: int, keys: Tensor, ref: Tensor) -> Tensor:
        """As many words of the vocabulary as the reference has (at least one), other than the reference.

        Of a phrase: one word that the reference lacks.
        """
        if len(self.vocabulary) < 2:
            raise AdvgymError('random targets need two words or more; name them: options={"targets": [...]}')
        wide = self.output_shape[0]
        draws = (rng.bits(seed, keys, (wide,), 31) % len(self.vocabulary)).tolist()
        out = []
        for draw, old in zip(draws, ref.tolist(), strict=True):
            clean = self.text(old)
            if self.name == "phrase":
                out.append(symbols.encode(self._absent(draw[0], clean), self.alphabet, wide))
                continue
            chosen = draw[: max(1, len(clean.split()))]
            while len(chosen) > 1 and not self._fits(chosen):
                chosen = chosen[:-1]
            while self._join(chosen) == clean or not self._fits(chosen):
                chosen = [*chosen[:-1], (chosen[-1] + 1) % len(self.vocabulary)]
                if chosen[-1] == draw[len(chosen) - 1]:
                    raise AdvgymError(f"no word of the vocabulary fits in {wide} frames; name the targets")
            out.append(symbols.encode(self._join(chosen), self.alphabet, wide))
        return torch.tensor(out, dtype=torch.int64, device=ref.device).reshape(len(out), wide)

    def _absent(self, first: int, clean: str) -> str:
        """A word of the vocabulary that the text lacks, the first one from a place on."""
        said, many = clean.split(), len(self.vocabulary)
        for word in (self.vocabulary[(first + i) % many] for i in range(many)):
            if word not in said and needed(word) <= self.output_shape[0]:
                return word
        raise AdvgymError(f"every word of the vocabulary that fits is in {clean!r}; name the targets")

    def _join(self, chosen: list[int]) -> str:
        return " ".join(self.vocabulary[i] for i in chosen)

    def _fits(self, chosen: list[int]) -> bool:
        text = self._join(chosen)
        return needed(text) <= self.output_shape[0]

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return ctc_loss(scores, labels)

    def text(self, ids: list[int]) -> str:
        """The text of symbol ids."""
        return symbols.decode(ids, self.alphabet)

    def describe(self, output: Tensor) -> str:
        return f'"{self.text(output.tolist())}"'

    def parse_target(self, value: Any) -> Tensor:
        """A text such as "seven two", or its symbol ids (padded or not); an empty one asks for silence."""
        wide = self.output_shape[0]
        if not isinstance(value, str):
            ids = torch.as_tensor(value, dtype=torch.int64).flatten().tolist()
            if any(not -1 <= i < self.outputs or i == 0 for i in ids):
                raise AdvgymError(f"a target's symbols are 1 to {self.outputs - 1}, padded with -1; got {ids}")
            value = self.text(ids)
        if self.name == "phrase" and not symbols.tidy(value):
            raise AdvgymError("a phrase has a word at least; goal='silence' asks for an empty transcript")
        if needed(symbols.tidy(value)) > wide:
            raise AdvgymError(f"the target {value!r} needs more than the {wide} frames of the victim's answer")
        return torch.tensor(symbols.encode(value, self.alphabet, wide), dtype=torch.int64)


def _decoder(name: str) -> Callable[[Tensor, int], Tensor]:
    if name == "greedy":
        return greedy
    from advgym.envs.speech.goals.beam import beam

    return beam
