"""Goals on generated sequences: no position as before, or keywords that must appear (Seq2Sick: Cheng et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import rng
from advgym.envs.text.seq2seq import END
from advgym.errors import AdvgymError
from advgym.goals import Goal

KAPPA = 1.0  # margin beyond which a position of the surrogate is won


class SequenceGoal(Goal):
    """Scores (n, T, V) of a greedy output, END at token 0 and nothing but END after the first one.

    - "untargeted" (non-overlap): every position that held a word in the victim's own clean output holds another token.
      The END of that output is not one of those positions (a headline of the same length may still succeed); an output
      that has ended by then differs there. Objective: the least margin (best other - reference) over these positions.
    - "keyword": each of K target words appears anywhere. Objective: the least over keywords of the greatest margin
      (keyword - best other) over positions.

    Outputs are the words' tokens, padded with -1 from the end on; a target is T entries, its K keywords first.

    Args:
        words: the headline words; token i + 1 is words[i].
        length: T.
        name: "untargeted" or "keyword".
        keywords: K.
    """

    def __init__(self, words: Sequence[str], length: int, name: str = "untargeted", keywords: int = 1) -> None:
        if not 1 <= keywords <= 3:
            raise AdvgymError(f"keywords is 1, 2 or 3, not {keywords}")
        self.name, self.needs_target = name, name == "keyword"
        self.words, self.keywords, self.length = tuple(words), keywords, length
        self.outputs = len(words) + 1
        self.scores_shape, self.output_shape = (length, self.outputs), (length,)

    def output(self, scores: Tensor) -> Tensor:
        tokens = scores.argmax(2)
        over = (tokens == END).cumsum(1) > 0
        return torch.where(over, -1, tokens)

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        return (self.output(scores) == labels).all(1)

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.needs_target and target is not None:
            return self._keyword(scores, target)
        here = ref >= 0
        lead = margin(scores, ref.clamp_min(0).unsqueeze(2)).squeeze(2)
        objective = -torch.where(here, lead, -torch.inf).amax(1)
        surrogate = (torch.where(here, -lead, 0.0).clamp_max(KAPPA)).sum(1) / here.sum(1).clamp_min(1)
        # A victim that said nothing has nothing to change.
        return torch.where(here.any(1), objective, -1.0), surrogate

    def _keyword(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        wanted = target >= 0  # (n, T)
        token = target.clamp_min(0).unsqueeze(1).expand(-1, self.length, -1)
        lead = margin(scores, token)  # (n, positions, keywords)
        best = lead.amax(1)
        objective = torch.where(wanted, best, torch.inf).amin(1)
        soft = torch.logsumexp(lead, 1).clamp_max(KAPPA)
        surrogate = torch.where(wanted, soft, 0.0).sum(1) / wanted.sum(1).clamp_min(1)
        return torch.where(wanted.any(1), objective, -1.0), surrogate

    def targets(self, seed: int, keys: Tensor, ref: Tensor) -> Tensor:
        """Keywords that the clean output does not hold."""
        u = rng.uniform(seed, keys, (self.outputs,), 31)
        held = torch.zeros_like(u, dtype=torch.bool)
        held[:, END] = True
        held.scatter_(1, torch.where(ref >= 0, ref, END), True)
        drawn = torch.where(held, -1.0, u).topk(self.keywords, 1).indices
        return F.pad(drawn, (0, self.length - self.keywords), value=-1)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the words of the true headline and its end."""
        many = (labels >= 0).sum(1)
        position = torch.arange(self.length, device=labels.device)
        counted = position <= many.unsqueeze(1)
        cross = F.cross_entropy(scores.transpose(1, 2), labels.clamp_min(END), reduction="none")
        return torch.where(counted, cross, 0.0).sum(1) / counted.sum(1)

    def describe(self, output: Tensor) -> str:
        return " ".join(self.words[i - 1] for i in output.tolist() if i > 0) or "(nothing)"

    def parse_target(self, value: Any) -> Tensor:
        """Keywords as words or tokens: "coast", ["coast", "police"], [3], or T entries padded with -1."""
        items = value.split() if isinstance(value, str) else torch.as_tensor(value).reshape(-1).tolist() if (
            isinstance(value, Tensor | int)
        ) else list(value)  # fmt: skip
        ids = [self.words.index(v) + 1 if v in self.words else v for v in items if v != -1]
        if len(ids) != self.keywords or not all(isinstance(v, int) and 0 < v < self.outputs for v in ids):
            raise AdvgymError(
                f"a target is {self.keywords} keyword(s) out of {', '.join(self.words)} (or tokens 1 to "
                f"{self.outputs - 1}), not {value!r}"
            )
        return torch.tensor(ids + [-1] * (self.length - len(ids)))


def margin(scores: Tensor, token: Tensor) -> Tensor:
    """Logit of `token` minus the best other one: (n, T, V) and int64 (n, T, K) -> (n, T, K)."""
    own = scores.gather(2, token)
    first, second = scores.topk(2, 2).values.unbind(2)
    top = scores.argmax(2, keepdim=True) == token
    return own - torch.where(top, second.unsqueeze(2), first.unsqueeze(2))
