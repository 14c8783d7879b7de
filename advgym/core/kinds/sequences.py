"""Goals on generated sequences of words, whatever they were written from.

Nothing kept, keywords or a phrase that must appear (Seq2Sick), a whole text to be written, BLEU below a bound, an error
rate above one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng
from advgym.core.goals import Goal
from advgym.errors import AdvgymError, unknown
from advgym.lib.bleu import sentence_bleu
from advgym.lib.distances import levenshtein

END = 0  # of the tokens; words follow
KAPPA = 1.0  # margin beyond which a position of the surrogate is won
CAP = 10.0  # nats that a position of the clean output counts at most in the surrogate of BLEU
GOALS = ("untargeted", "keyword", "phrase", "bleu", "targeted", "error-rate")
WHOLE = ("phrase", "targeted")  # whose targets are several words in their order
_NONE = (
    "no {} occurs often enough in the other outputs to be drawn as a target: name targets, "
    'reset(options={{"targets": [...]}})'
)
UNSEEN = -2  # in labels: a word that the victim cannot write


class SequenceGoal(Goal):
    """Scores (n, T, V) of a greedy output, END at token 0 and nothing but END after the first one.

    - "untargeted" (non-overlap): every position that held a word in the victim's own clean output holds another token.
      The END of that output is not one of those positions (a headline of the same length may still succeed); an output
      that has ended by then differs there. Objective: the least margin (best other - reference) over these positions.
    - "keyword": each of K target words appears anywhere. Objective: the least over keywords of the greatest margin
      (keyword - best other) over positions.
    - "phrase": the target words appear one after the other. Objective: the greatest over places of the least margin
      over the words.
    - "bleu": sentence BLEU against the victim's own clean output is below the bound. Objective: bound - BLEU, both in
      [0, 1]; its gradient is zero. Surrogate: the clean output's mean negative log-likelihood, position by position.

    - "targeted": the output is the target, word by word, and ends there. Objective: the least margin of these.
    - "error-rate": word errors (Levenshtein) against the clean output of N words, of at least `rate` N. Objective:
      (errors - those needed + 1/2) / N; its gradient is zero, the surrogate that of "bleu".

    The first three are those of Seq2Sick (Cheng et al., 2018). Outputs are the words' tokens, padded with -1 from the
    end on; a target is T entries, its K words first. Labels may hold UNSEEN.

    Args:
        words: the output words; token i + 1 is words[i].
        length: T.
        name: one of GOALS.
        keywords: K of "keyword".
        pool: tokens that keywords are drawn from; None for all.
        phrases: int64 (P, K), padded with -1: the phrases that targets are drawn from.
        bound: BLEU in points, 0 to 100.
        rate: of errors, above 0 and at most 1.
        least: a clean output is right from this sentence BLEU on (points) against its label; None: where it equals it.
        joined: makes a text of words.
    """

    def __init__(
        self, words: Sequence[str], length: int, name: str = "untargeted", keywords: int = 1, *,
        pool: Tensor | None = None, phrases: Tensor | None = None, bound: float = 20.0, least: float | None = None,
        rate: float = 0.5,
        joined: Callable[[list[str]], str] = " ".join,
    ) -> None:  # fmt: skip
        if name not in GOALS:
            raise unknown("goal", name, GOALS)
        if not 1 <= keywords <= 3:
            raise AdvgymError(f"keywords is 1, 2 or 3, not {keywords}")
        if not 0 < bound <= 100:
            raise AdvgymError(f"bleu is a bound in points, above 0 and at most 100, not {bound}")
        if not 0 < rate <= 1:
            raise AdvgymError(f"rate is a share of words in error, above 0 and at most 1, not {rate}")
        self.rate = rate
        self.name, self.needs_target = name, name in ("keyword", *WHOLE)
        self.words, self.keywords, self.length = tuple(words), keywords, length
        self.index = {word: i + 1 for i, word in enumerate(self.words)}
        self.pool = torch.arange(1, len(words) + 1) if pool is None else pool
        self.phrases, self.bound, self.least, self.joined = phrases, bound / 100, least, joined
        self.outputs = len(words) + 1
        self.scores_shape, self.output_shape = (length, self.outputs), (length,)

    def output(self, scores: Tensor) -> Tensor:
        tokens = scores.argmax(2)
        over = (tokens == END).cumsum(1) > 0
        return torch.where(over, -1, tokens)

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        said = self.output(scores)
        if self.least is None:
            return (said == labels).all(1)
        return (said[:, 0] >= 0) & (100 * sentence_bleu(said, labels) >= self.least)

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.name in ("bleu", "error-rate"):
            return self._far(scores, ref)
        if self.name == "targeted" and target is not None:
            return self._exactly(scores, target)
        if self.needs_target and target is not None:
            return self._phrase(scores, target) if self.name == "phrase" else self._keyword(scores, target)
        here = ref >= 0
        lead = margin(scores, ref.clamp_min(0).unsqueeze(2)).squeeze(2)
        objective = -torch.where(here, lead, -torch.inf).amax(1)
        surrogate = (torch.where(here, -lead, 0.0).clamp_max(KAPPA)).sum(1) / here.sum(1).clamp_min(1)
        # A victim that said nothing has nothing to change.
        return torch.where(here.any(1), objective, -1.0), surrogate

    def _keyword(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        target = target[:, : self.keywords]
        wanted = target >= 0  # (n, keywords)
        lead = margin(scores, target.clamp_min(0).unsqueeze(1).expand(-1, self.length, -1))
        best = lead.amax(1)
        objective = torch.where(wanted, best, torch.inf).amin(1)
        soft = torch.logsumexp(lead, 1).clamp_max(KAPPA)
        surrogate = torch.where(wanted, soft, 0.0).sum(1) / wanted.sum(1).clamp_min(1)
        return torch.where(wanted.any(1), objective, -1.0), surrogate

    def _phrase(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        wanted = target >= 0
        most = max(1, int(wanted.sum(1).max()))
        target, wanted = target[:, :most], wanted[:, :most].unsqueeze(1)
        lead = margin(scores, target.clamp_min(0).unsqueeze(1).expand(-1, self.length, -1))  # (n, T, words)
        # Word k of a phrase at place s stands at s + k; beyond the last position there is none.
        far = lead.new_full((), -1e4)
        shifted = [F.pad(lead[:, k:, k], (0, k), value=float(far)) for k in range(most)]
        place = torch.stack(shifted, 2)  # (n, places, words)
        objective = torch.where(wanted, place, torch.inf).amin(2).amax(1)
        each = torch.where(wanted, place.clamp_max(KAPPA), 0.0).sum(2) / wanted.sum(2).clamp_min(1)
        surrogate = torch.logsumexp(each, 1).clamp_max(KAPPA)
        return torch.where(wanted.any(2).squeeze(1), objective, -1.0), surrogate

    def _exactly(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        many = (target >= 0).sum(1, keepdim=True)
        lead = margin(scores, target.clamp_min(END).unsqueeze(2)).squeeze(2)
        counted = torch.arange(self.length, device=scores.device) <= many  # the words, and the end after them
        objective = torch.where(counted, lead, torch.inf).amin(1)
        surrogate = torch.where(counted, lead.clamp_max(KAPPA), 0.0).sum(1) / counted.sum(1)
        return torch.where(many.squeeze(1) > 0, objective, -1.0), surrogate

    def _far(self, scores: Tensor, ref: Tensor) -> tuple[Tensor, Tensor]:
        here = ref >= 0
        with torch.no_grad():
            if self.name == "bleu":
                gap = (self.bound - sentence_bleu(self.output(scores), ref)).to(scores.dtype)
            else:
                words = here.sum(1).clamp_min(1)
                needed = (self.rate * words - 1e-6).ceil().clamp_min(1)
                gap = ((levenshtein(self.output(scores), ref) - needed + 0.5) / words).to(scores.dtype)
        chosen = scores.gather(2, ref.clamp_min(0).unsqueeze(2)).squeeze(2)
        cross = (scores.logsumexp(2) - chosen).clamp_max(CAP)
        surrogate = torch.where(here, cross, 0.0).sum(1) / here.sum(1).clamp_min(1)
        return torch.where(here.any(1), gap, -1.0) + 0 * surrogate, surrogate

    # -- targets ---------------------------------------------------------------------------------------------
    def targets(self, seed: int, keys: Tensor, ref: Tensor) -> Tensor:
        """Keywords, or a phrase, that the clean output does not hold; none where all are held."""
        if self.name in WHOLE:
            return self._draw_phrase(seed, keys, ref)
        pool = self.pool.to(ref.device)
        if not len(pool):
            raise AdvgymError(_NONE.format("keyword"))
        u = rng.uniform(seed, keys, (len(pool),), 31)
        held = torch.zeros(len(ref), self.outputs, dtype=torch.bool, device=ref.device)
        held[:, END] = True
        held.scatter_(1, torch.where(ref >= 0, ref, END), True)
        u = torch.where(held[:, pool], -1.0, u)
        best, drawn = u.topk(min(self.keywords, len(pool)), 1)
        drawn = torch.where(best >= 0, pool[drawn], -1)
        return F.pad(drawn, (0, self.length - drawn.shape[1]), value=-1)

    def _draw_phrase(self, seed: int, keys: Tensor, ref: Tensor) -> Tensor:
        if self.phrases is None or not len(self.phrases):
            raise AdvgymError(_NONE.format("phrase"))
        phrases = self.phrases.to(ref.device)
        u = rng.uniform(seed, keys, (len(phrases),), 32)
        held = torch.zeros(len(ref), len(phrases), dtype=torch.bool, device=ref.device)
        many = (phrases >= 0).sum(1)
        for start in range(self.length):
            piece = F.pad(ref[:, start : start + phrases.shape[1]], (0, phrases.shape[1]), value=-1)
            same = (piece[:, None, : phrases.shape[1]] == phrases) | (phrases < 0)
            held |= same.all(2)
        best, drawn = torch.where(held | (many == 0), -1.0, u).max(1)
        found = torch.where((best >= 0).unsqueeze(1), phrases[drawn], -1)
        return F.pad(found, (0, self.length - found.shape[1]), value=-1)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the words of the true output and its end; words that cannot be written aside."""
        many = (labels != -1).sum(1)
        position = torch.arange(self.length, device=labels.device)
        counted = (position <= many.unsqueeze(1)) & (labels != UNSEEN)
        cross = F.cross_entropy(scores.transpose(1, 2), labels.clamp_min(END), reduction="none")
        return torch.where(counted, cross, 0.0).sum(1) / counted.sum(1).clamp_min(1)

    def describe(self, output: Tensor) -> str:
        return self.joined([self.words[i - 1] for i in output.tolist() if i > 0]) or "(nothing)"

    def parse_target(self, value: Any) -> Tensor:
        """Words or tokens: "coast", ["coast", "police"], [3], or T entries padded with -1."""
        items = value.split() if isinstance(value, str) else torch.as_tensor(value).reshape(-1).tolist() if (
            isinstance(value, Tensor | int)
        ) else list(value)  # fmt: skip
        ids = [self.index.get(v, v) if isinstance(v, str) else v for v in items if v != -1]
        fits = 1 <= len(ids) <= self.length if self.name in WHOLE else len(ids) == self.keywords
        if not fits or not all(isinstance(v, int) and 0 < v < self.outputs for v in ids):
            many = "a phrase" if self.name in WHOLE else f"{self.keywords} keyword(s)"
            some = ", ".join(self.words[:30]) + (" ..." if len(self.words) > 30 else "")
            raise AdvgymError(
                f"a target is {many} out of {some} (or tokens 1 to {self.outputs - 1}), not {value!r}"
            )  # fmt: skip
        return torch.tensor(ids + [-1] * (self.length - len(ids)))


def margin(scores: Tensor, token: Tensor) -> Tensor:
    """Logit of `token` minus the best other one: (n, T, V) and int64 (n, T, K) -> (n, T, K)."""
    own = scores.gather(2, token)
    first, second = scores.topk(2, 2).values.unbind(2)
    top = scores.argmax(2, keepdim=True) == token
    return own - torch.where(top, second.unsqueeze(2), first.unsqueeze(2))
