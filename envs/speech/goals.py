"""Goals against a CTC recogniser: wreck the transcript, or have it say a given text."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng
from advgym.core.goals import Goal
from advgym.envs.speech import symbols
from advgym.envs.speech.metrics import edit_distance, lengths, wer, word_errors
from advgym.envs.speech.victims.beam import compact, tidied
from advgym.errors import AdvgymError


def greedy(scores: Tensor, space: int = 1) -> Tensor:
    """Best-path transcript of CTC scores (n, T, V), blank 0: int64 (n, T) padded with -1.

    Repeats collapse, blanks go (Graves et al. 2006), then spaces are tidied: single, none at the ends. `space` 0 for
    an alphabet without one.
    """
    best = scores.argmax(2)
    last = F.pad(best[:, :-1], (1, 0), value=0)
    ids = compact(best, (best != 0) & (best != last))
    return tidied(ids, space)


def ctc_loss(scores: Tensor, ids: Tensor) -> Tensor:
    """CTC loss of each row, float32 (n,): scores (n, T, V), blank 0, ids padded with -1; 0 where no path fits."""
    n, frames, _ = scores.shape
    long = torch.full((n,), frames, dtype=torch.int64, device=scores.device)
    logp = F.log_softmax(scores, 2).transpose(0, 1)  # of log-probabilities: themselves
    return F.ctc_loss(logp, ids.clamp_min(0), long, lengths(ids), reduction="none", zero_infinity=True)


class CtcGoal(Goal):
    """Goals on transcripts; scores (frames, symbols) are log-probabilities (or logits) per frame, blank 0.

    Untargeted: a word error rate of at least 1/2 against the victim's own clean transcript of N words; the objective
    is WER - 1/2 + 1/(2N), whose least positive value is 1/(2N). Targeted: exactly the target's text of L symbols; the
    objective is -CER + 1/(2L).

    Args:
        frames: T, also the width of outputs and labels.
        alphabet: symbol i is alphabet[i - 1].
        name: "untargeted" or "targeted".
        vocabulary: words that default targets are made of.
    """

    def __init__(
        self,
        frames: int,
        alphabet: str = symbols.ALPHABET,
        name: str = "untargeted",
        vocabulary: tuple[str, ...] = symbols.DIGITS,
    ) -> None:
        self.name, self.needs_target = name, name == "targeted"
        self.alphabet, self.space, self.vocabulary = alphabet, alphabet.find(" ") + 1, vocabulary
        self.outputs = len(alphabet) + 1
        self.scores_shape, self.output_shape = (frames, self.outputs), (frames,)

    def output(self, scores: Tensor) -> Tensor:
        return greedy(scores, self.space)

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        # What is already half wrong would be a success at no cost.
        return wer(self.output(scores), labels, self.space) < 0.5

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        hyp = self.output(scores.detach())
        if self.needs_target and target is not None:
            objective = (0.5 - edit_distance(hyp, target)) / lengths(target).clamp_min(1)
            surrogate = -ctc_loss(scores, target)
        else:
            edits, count = word_errors(hyp, ref, self.space)
            count = count.clamp_min(1)
            objective, surrogate = (2 * edits - count + 1) / (2 * count), ctc_loss(scores, ref)
        broken = scores.detach().isnan().flatten(1).any(1)  # argmax would read NaN as a symbol
        return torch.where(broken, -1.0, objective), surrogate

    def targets(self, seed: int, keys: Tensor, ref: Tensor) -> Tensor:
        """As many words of the vocabulary as the reference has (at least one), other than the reference."""
        if len(self.vocabulary) < 2:
            raise AdvgymError('random targets need two words or more; name them: options={"targets": [...]}')
        wide = self.output_shape[0]
        draws = (rng.bits(seed, keys, (wide,), 31) % len(self.vocabulary)).tolist()
        out = []
        for draw, old in zip(draws, ref.tolist(), strict=True):
            clean = self.text(old)
            chosen = draw[: max(1, len(clean.split()))]
            while len(chosen) > 1 and not self._fits(chosen):
                chosen = chosen[:-1]
            while self._join(chosen) == clean or not self._fits(chosen):
                chosen = [*chosen[:-1], (chosen[-1] + 1) % len(self.vocabulary)]
                if chosen[-1] == draw[len(chosen) - 1]:
                    raise AdvgymError(f"no word of the vocabulary fits in {wide} frames; name the targets")
            out.append(symbols.encode(self._join(chosen), self.alphabet, wide))
        return torch.tensor(out, dtype=torch.int64, device=ref.device).reshape(len(out), wide)

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
        if needed(symbols.tidy(value)) > wide:
            raise AdvgymError(f"the target {value!r} needs more than the {wide} frames of the victim's answer")
        return torch.tensor(symbols.encode(value, self.alphabet, wide), dtype=torch.int64)


def needed(text: str) -> int:
    """Frames that a CTC path of this text needs: one per symbol and a blank between equal neighbours."""
    return len(text) + sum(a == b for a, b in pairwise(text))
