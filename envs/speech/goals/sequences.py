"""Goals on what an encoder-decoder writes: wreck it, have it write a given text, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng
from advgym.core.goals import Goal
from advgym.envs.speech.measures.errors import edit_distance, lengths
from advgym.envs.speech.symbols import plain_words
from advgym.errors import AdvgymError, unknown

GOALS = ("untargeted", "targeted", "silence")
CAP = 10.0  # nats that a token of the clean output counts at most in the untargeted surrogate
END = 0


class SequenceGoal(Goal):
    """Scores (n, T, K + 2): log-probabilities of the end (0), K tokens and "any other" (K + 1) along the greedy output.

    Untargeted: at least `share` token errors for each of the N tokens of the victim's own clean output; the objective
    is (errors - the errors that are needed + 1/2) / N. Targeted: exactly the target's L tokens; (1/2 - errors) / L.
    Silence: no token; (1/2 - tokens) / N. Surrogates are mean log-probabilities, position by position with the end, of
    the target (or of silence), or minus those of the clean output, `CAP` nats a token at most.

    Args:
        count: K.
        length: T.
        name: one of GOALS.
        write: the text of kept tokens.
        read: the kept tokens of a text; raises for those that are not kept.
        pool: int64 (P, T) outputs that targets are drawn from, padded with -1.
        share: token errors for each token of the clean output.
    """

    def __init__(
        self, count: int, length: int, name: str = "untargeted", *, write: Callable[[Sequence[int]], str],
        read: Callable[[str], list[int]], pool: Tensor, share: float = 0.5,
    ) -> None:  # fmt: skip
        if name not in GOALS:
            raise unknown("goal", name, GOALS)
        self.name, self.needs_target, self.share = name, name == "targeted", share
        self.write, self.read, self.pool, self.length = write, read, pool, length
        self.outputs = count + 2
        self.scores_shape, self.output_shape = (length, self.outputs), (length,)

    def output(self, scores: Tensor) -> Tensor:
        tokens = scores.argmax(2)
        return torch.where((tokens == END).cumsum(1) > 0, -1, tokens)

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Less than half of the true words are wrong, whatever the case and the punctuation."""
        found = []
        for said, truth in zip(self.output(scores).tolist(), labels.tolist(), strict=True):
            heard, meant = plain_words(self.write(said)), plain_words(self.write(truth))
            ids = {word: i for i, word in enumerate({*heard, *meant})}
            rows = [torch.tensor([[ids[w] for w in words] + [-1]]) for words in (heard, meant)]
            found.append(bool(meant) and 2 * int(edit_distance(*rows)) < len(meant))
        return torch.tensor(found, dtype=torch.bool, device=scores.device)

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        said = self.output(scores.detach())
        if self.name == "silence":
            objective = (0.5 - lengths(said)) / lengths(ref).clamp_min(1)
            surrogate = -self._nll(scores, torch.full_like(ref, -1))
        elif self.needs_target and target is not None:
            objective = (0.5 - edit_distance(said, target)) / lengths(target).clamp_min(1)
            surrogate = -self._nll(scores, target)
        else:
            count = lengths(ref).clamp_min(1)
            needed = torch.ceil(self.share * count.double() - 1e-9).clamp_min(1)
            objective = ((edit_distance(said, ref) - needed + 0.5) / count).float()
            surrogate = self._nll(scores, ref, CAP)
        broken = scores.detach().isnan().flatten(1).any(1)
        return torch.where(broken, -1.0, objective.float()), surrogate

    def _nll(self, scores: Tensor, ids: Tensor, cap: float | None = None) -> Tensor:
        """Mean of minus the log-probabilities of tokens and their end, float32 (n,)."""
        many = lengths(ids)
        here = torch.arange(self.length, device=scores.device) <= many.unsqueeze(1)
        each = -scores.gather(2, ids.clamp_min(END).unsqueeze(2)).squeeze(2)
        each = each if cap is None else each.clamp_max(cap)
        return torch.where(here, each, 0.0).sum(1) / here.sum(1)

    def targets(self, seed: int, keys: Tensor, ref: Tensor) -> Tensor:
        """Another sample's clean output."""
        pool = self.pool.to(ref.device)
        other = (pool.unsqueeze(0) != ref.unsqueeze(1)).any(2) & (pool[:, 0] >= 0)
        if not bool(other.any(1).all()):
            raise AdvgymError('too few clean outputs to draw targets from; name them: options={"targets": [...]}')
        draw = torch.where(other, rng.uniform(seed, keys, (len(pool),), 31), -1.0)
        return pool[draw.argmax(1)]

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return self._nll(scores, labels)

    def describe(self, output: Tensor) -> str:
        return f'"{self.write(output.tolist())}"'

    def parse_target(self, value: Any) -> Tensor:
        """A text such as "open the door", or kept tokens (padded or not)."""
        if isinstance(value, str):
            ids = self.read(value)
        else:
            ids = [i for i in torch.as_tensor(value, dtype=torch.int64).flatten().tolist() if i != -1]
            if any(not 0 < i < self.outputs - 1 for i in ids):
                raise AdvgymError(f"a target's tokens are 1 to {self.outputs - 2}, padded with -1; got {ids}")
        if not 0 < len(ids) < self.length:
            raise AdvgymError(f"the target {value!r} has {len(ids)} tokens; want 1 to {self.length - 1}")
        return F.pad(torch.tensor(ids, dtype=torch.int64), (0, self.length - len(ids)), value=-1)
