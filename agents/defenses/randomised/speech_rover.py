"""Randomised smoothing of a recogniser by a ROVER vote over transcripts (Olivier and Raj 2021; Fiscus 1997)."""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.wrapping import asked, straight_through
from advgym.core.rng import mix, normal
from advgym.envs.speech.goals.decode import greedy
from advgym.lib.settings import COUNT, POSITIVE

SURE = 0.9  # the probability of the path that reads the vote, where the mean of the draws reads otherwise


@register_defense("rover", domains=("speech",), allowed={"draws": COUNT, "noise": POSITIVE})
def defend(victim: Victim, task, *, draws: int = 8, noise: float = 0.01, adaptive: bool = True) -> Victim:
    """The transcripts of `draws` noisy copies are aligned word by word, and at each place most of them win.

    Noise is Gaussian with a deviation of `noise` of full scale, from the keys. Scores are the mean probabilities of the
    draws where their best path reads the vote, else a path that does; backward: the mean log-probabilities
    (expectation over the draws). `adaptive=False`: the undefended victim's gradient.

    Raises:
        AdvgymError: for a task without transcripts.
    """
    if not hasattr(task.goal, "alphabet") or len(task.goal.scores_shape) != 2:
        raise AdvgymError(f"{task.name} offers no transcripts to vote over; `smoothing` votes over classes")
    model = Rover(victim, draws, noise, int(task.goal.space), adaptive)
    access = "gradients" if victim.access == "gradients" else "scores"
    name = f"{victim.name}+rover({draws}){'' if adaptive else ',naive'}"
    return victim.like(model, name=name, access=access, keyed=True, draws=1)


class Rover(nn.Module):
    """Scores (n, frames, symbols) whose best path is the vote."""

    def __init__(self, victim: Victim, draws: int, noise: float, space: int, adaptive: bool) -> None:
        super().__init__()
        self.victim, self.draws, self.noise, self.space, self.adaptive = victim, draws, noise, space, adaptive
        self.inner = victim.module

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        """One draw at a time, so memory does not grow with the draws."""
        mean = soft = torch.zeros((), device=x.device)
        heard = []
        naive = not self.adaptive and torch.is_grad_enabled() and x.requires_grad
        with torch.set_grad_enabled(torch.is_grad_enabled() and not naive):
            for draw in range(self.draws):
                key = mix(keys * 2**8 + draw)
                logp = torch.log_softmax(
                    asked(self.victim, x + self.noise * normal(0, key, tuple(x.shape[1:])), key), 2
                )
                mean, soft = mean + logp.detach().exp() / self.draws, soft + logp / self.draws
                heard.append(greedy(logp.detach(), self.space))
        if naive:
            soft = torch.log_softmax(asked(self.victim, x, keys), 2)
        voted = vote_rows(torch.stack(heard, 1), self.space)
        same = (greedy(mean, self.space) == voted).all(1).view(-1, 1, 1)
        value = torch.where(same, mean, SURE * path(voted, mean.shape[2]) + (1 - SURE) * mean)
        return straight_through(value.clamp_min(1e-30).log(), soft)


def path(ids: Tensor, symbols: int) -> Tensor:
    """One-hot paths (n, frames, symbols) that read these transcripts (n, frames), a blank between equal neighbours.

    What does not fit into the frames is left out at the end.
    """
    n, frames = ids.shape
    again = F.pad((ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] >= 0), (1, 0)).long()
    place = torch.arange(frames, device=ids.device) + again.cumsum(1)
    place = torch.where((ids >= 0) & (place < frames), place, frames)
    out = torch.zeros(n, frames + 1, dtype=torch.int64, device=ids.device)
    out = out.scatter(1, place, ids.clamp_min(0))[:, :frames]
    return F.one_hot(out, symbols).float()


def vote_rows(heard: Tensor, space: int) -> Tensor:
    """The vote of each row over transcripts (n, draws, L) of symbols padded with -1: int64 (n, L)."""
    wide = heard.shape[2]
    found = []
    for draws in heard.tolist():
        texts = [_words([s for s in row if s >= 0], space) for row in draws]
        ids = [s for i, word in enumerate(rover(texts)) for s in ([space] if i and space else []) + list(word)][:wide]
        found.append(ids + [-1] * (wide - len(ids)))
    return torch.tensor(found, dtype=torch.int64, device=heard.device)


def _words(ids: list[int], space: int) -> list[tuple[int, ...]]:
    """Symbols between spaces; single symbols where there is no space."""
    if not space:
        return [(s,) for s in ids]
    words: list[tuple[int, ...]] = [()]
    for s in ids:
        words = [*words, ()] if s == space else [*words[:-1], (*words[-1], s)]
    return [w for w in words if w]


def rover(texts: list[list]) -> list:
    """The words that most of the texts have at each place; no word is a vote too (Fiscus 1997, by frequency).

    Texts join a network of places one after another, each aligned to it at the least edits; ties are won by the word
    that was said first.

    >>> rover([["one", "two"], ["one", "six"], ["nine", "six"]])
    ['one', 'six']
    """
    places: list[Counter] = []
    for count, text in enumerate(texts):
        places = _joined(places, text, count)
    best = [max(place, key=place.__getitem__) for place in places]  # the first of equals
    return [word for word in best if word is not None]


def _joined(places: list[Counter], text: list, count: int) -> list[Counter]:
    """The network with one more text: each place counts a word, or None where the text has none there."""
    rows, columns = len(places), len(text)
    cost = [[*range(columns + 1)]]
    for i in range(1, rows + 1):
        cost.append([cost[i - 1][0] + (None not in places[i - 1])] + [0] * columns)
        for j in range(1, columns + 1):
            swap = cost[i - 1][j - 1] + (text[j - 1] not in places[i - 1])
            cost[i][j] = min(swap, cost[i - 1][j] + (None not in places[i - 1]), cost[i][j - 1] + 1)
    out, i, j = [], rows, columns
    while i or j:
        if i and j and cost[i][j] == cost[i - 1][j - 1] + (text[j - 1] not in places[i - 1]):
            i, j = i - 1, j - 1
            places[i][text[j]] += 1
            out.append(places[i])
        elif i and (not j or cost[i][j] == cost[i - 1][j] + (None not in places[i - 1])):
            i -= 1
            places[i][None] += 1
            out.append(places[i])
        else:
            j -= 1
            new = Counter({None: count}) if count else Counter()
            new[text[j]] += 1
            out.append(new)
    return out[::-1]
