"""Prefix beam search over CTC scores: the most probable transcript, where greedy decoding reads the best path."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.envs.speech.goals.decode import tidied

NEVER = -1e30  # the log-probability of nothing, finite so that sums stay numbers
_ODD = 0x2545F4914F6CDD1D  # multiplication by it loses no bit of a prefix's hash


def beam(scores: Tensor, space: int = 1, width: int = 8) -> Tensor:
    """Transcripts of CTC scores (n, T, V), blank 0, by prefix beam search (Hannun et al. 2014), no language model.

    The probability of a transcript is the sum over all paths that read it. After each frame the `width` best prefixes
    of each row are kept; where nothing is dropped the answer is the exact maximum. All rows and prefixes are grown
    at once, in float64, and a row does not depend on the others. Spaces are tidied at the end. Not differentiable.

    Args:
        scores: log-probabilities or logits; a row with NaN reads as nothing.
        space: symbol of the space; 0 for an alphabet without one.
        width: prefixes that are kept, at least 1.

    Returns:
        int64 (n, T) padded with -1, as greedy decoding answers.

    Raises:
        ValueError: for a width below 1.
    """
    if width < 1:
        raise ValueError(f"width is a whole number of at least 1, not {width}")
    n, frames, symbols = scores.shape
    at = scores.device
    logp = torch.log_softmax(scores.detach().double(), 2)
    broken = logp.isnan().flatten(1).any(1, keepdim=True)
    logp = logp.nan_to_num(NEVER).clamp_min(NEVER)
    text = torch.full((n, 1, frames), -1, dtype=torch.int64, device=at)
    size = torch.zeros(n, 1, dtype=torch.int64, device=at)
    mark = torch.zeros_like(size)  # a hash of each prefix
    blank = torch.zeros(n, 1, dtype=torch.float64, device=at)  # log-probability of its paths that end in a blank
    plain = torch.full_like(blank, NEVER)  # ... in its last symbol
    each = torch.arange(1, symbols, device=at)
    for t in range(frames):
        now = logp[:, t]
        last = text.gather(2, (size - 1).clamp_min(0).unsqueeze(2)).squeeze(2)
        whole = torch.logaddexp(blank, plain)
        kept_blank = whole + now[:, :1]
        kept_plain = plain + now.gather(1, last.clamp_min(0))
        # Grown by a symbol: by the last one again only from a blank.
        source = torch.where(each == last.unsqueeze(2), blank.unsqueeze(2), whole.unsqueeze(2))
        grown = (source + now[:, None, 1:]).flatten(1)
        name = (mark.unsqueeze(2) * _ODD + each * (_ODD >> 7) + 1).flatten(1)
        # What is grown into a prefix that is kept already is one with it.
        same = (name.unsqueeze(1) == mark.unsqueeze(2)) & (size > 0).unsqueeze(2)
        kept_plain = torch.logaddexp(kept_plain, torch.where(same, grown.unsqueeze(1), NEVER).logsumexp(2))
        grown = torch.where(same.any(1), NEVER, grown)
        # The best of both: first the kept, then the grown.
        of_blank = torch.cat([kept_blank, torch.full_like(grown, NEVER)], 1)
        of_plain = torch.cat([kept_plain, grown], 1)
        mass = torch.logaddexp(of_blank, of_plain)
        best = mass.argsort(dim=1, descending=True, stable=True)[:, :width]
        blank, plain = of_blank.gather(1, best).clamp_min(NEVER), of_plain.gather(1, best).clamp_min(NEVER)
        held = size.shape[1]
        new = best >= held
        parent = torch.where(new, (best - held) // max(symbols - 1, 1), best)
        symbol = torch.where(new, (best - held) % max(symbols - 1, 1) + 1, -1)
        text = text.gather(1, parent.unsqueeze(2).expand(-1, -1, frames))
        size = size.gather(1, parent)
        here = F.one_hot(size.clamp_max(frames - 1), frames).bool() & new.unsqueeze(2)
        text = torch.where(here, symbol.unsqueeze(2), text)
        size = size + new.long()
        mark = torch.cat([mark, name], 1).gather(1, best)
        # A dead prefix may bear the hash of a live one: it is given one of its own.
        dead = mass.gather(1, best) <= NEVER / 2
        mark = torch.where(dead, -1 - torch.arange(best.shape[1], device=at), mark)
    out = text[:, 0]
    return tidied(torch.where(broken, -1, out), space)
