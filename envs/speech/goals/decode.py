"""From CTC scores to symbols, and the losses that say how far a text is from them."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.envs.speech.measures.errors import lengths

NEVER = -1e30  # log of a probability that is none, with a gradient of 0


def compact(ids: Tensor, keep: Tensor) -> Tensor:
    """The kept entries of each row moved to its front, the rest -1; shape (n, L) as it was."""
    n, wide = ids.shape
    place = torch.where(keep, keep.long().cumsum(1) - 1, wide)
    out = torch.full((n, wide + 1), -1, dtype=torch.int64, device=ids.device)
    return out.scatter_(1, place, torch.where(keep, ids, -1))[:, :wide]


def greedy(scores: Tensor, space: int = 1) -> Tensor:
    """Best-path transcript of CTC scores (n, T, V), blank 0: int64 (n, T) padded with -1.

    Repeats collapse, blanks go (Graves et al. 2006), then spaces are tidied: single, none at the ends. `space` 0 for
    an alphabet without one.
    """
    best = scores.argmax(2)
    last = F.pad(best[:, :-1], (1, 0), value=0)
    return tidied(compact(best, (best != 0) & (best != last)), space)


def tidied(ids: Tensor, space: int) -> Tensor:
    """Symbol rows (n, L) with single spaces, none at the ends."""
    if not space:
        return ids
    gap = ids == space
    opens = F.pad(gap[:, :-1], (1, 0), value=True)
    ids = compact(ids, (ids >= 0) & ~(gap & opens))
    after = F.pad(ids[:, 1:], (0, 1), value=-1)
    return torch.where((ids == space) & (after < 0), -1, ids)


def ctc_loss(scores: Tensor, ids: Tensor) -> Tensor:
    """CTC loss of each row, float32 (n,): scores (n, T, V), blank 0, ids padded with -1; 0 where no path fits."""
    n, frames, _ = scores.shape
    long = torch.full((n,), frames, dtype=torch.int64, device=scores.device)
    logp = F.log_softmax(scores, 2).transpose(0, 1)  # of log-probabilities: themselves
    return F.ctc_loss(logp, ids.clamp_min(0), long, lengths(ids), reduction="none", zero_infinity=True)


def phrase_loss(scores: Tensor, ids: Tensor, space: int = 1) -> Tensor:
    """Minus the log-probability that a CTC path says these symbols somewhere, as whole words: float32 (n,).

    The forward recursion of CTC (Graves et al. 2006) between two states that take any symbol with probability 1.

    Args:
        scores: (n, T, V), blank 0.
        ids: int64 (n, L), a phrase of one symbol or more, padded with -1.
        space: what stands before and after a phrase inside a text; 0 for an alphabet without one.
    """
    logp = F.log_softmax(scores, 2)
    n, frames, _ = logp.shape
    size = lengths(ids)
    token, last = ids[:, : int(size.max())].clamp_min(0), size - 1
    if space:
        edge = torch.full_like(ids[:, :1], space)
        token = torch.cat([edge, token, edge], 1).scatter(1, (size + 1).unsqueeze(1), space)
        last = size + 1
    tokens = token.shape[1]
    # Of each token its own state, and that of the blank behind it.
    skip = torch.cat([torch.zeros_like(token[:, :1], dtype=torch.bool), token[:, 1:] != token[:, :-1]], 1)
    said = logp.gather(2, token.unsqueeze(1).expand(-1, frames, -1))  # (n, T, tokens)
    blank = logp[:, :, :1]
    never = logp.new_full((n, 1), NEVER)
    label, quiet = logp.new_full((n, tokens), NEVER), logp.new_full((n, tokens), NEVER)
    done = never[:, 0]
    end = last.unsqueeze(1)
    start = torch.arange(tokens, device=ids.device) == 0
    for t in range(frames):
        into = torch.cat([never, quiet[:, :-1]], 1)
        over = torch.where(skip, torch.cat([never, label[:, :-1]], 1), NEVER)
        opens = torch.where(start, 0.0, NEVER).expand(n, -1)  # anything before
        if t == 0 and space and tokens > 1:  # the beginning of a text needs no space
            opens = torch.where(torch.arange(tokens, device=ids.device) <= 1, 0.0, NEVER).expand(n, -1)
        arrived = label.gather(1, end).squeeze(1)
        new = torch.logsumexp(torch.stack([label, into, over, opens]), 0) + said[:, t]
        rest = torch.logsumexp(torch.stack([quiet, label]), 0) + blank[:, t]
        if space:  # nothing but blanks so far: as if a space had been said
            led = blank[:, : t + 1, 0].sum(1)
            rest = torch.cat([torch.logaddexp(rest[:, :1], led.unsqueeze(1)), rest[:, 1:]], 1)
        done = torch.logaddexp(done, arrived)
        label, quiet = new, rest
    ends = [done, label.gather(1, end).squeeze(1)]
    if space:  # the end of a text needs none either
        before = (end - 1).clamp_min(0)
        ends += [label.gather(1, before).squeeze(1), quiet.gather(1, before).squeeze(1)]
    return -torch.logsumexp(torch.stack(ends), 0)


def needed(text: str) -> int:
    """Frames that a CTC path of this text needs: one per symbol and a blank between equal neighbours."""
    return len(text) + sum(a == b for a, b in pairwise(text))
