"""Sentence BLEU of token sequences, all rows at once (Papineni et al., 2002)."""

from __future__ import annotations

import torch
from torch import Tensor

ORDERS = 4


def sentence_bleu(output: Tensor, ref: Tensor) -> Tensor:
    """BLEU of each row, float64 (n,) in [0, 1].

    Equal to `sacrebleu.sentence_bleu(" ".join(output), [" ".join(ref)], tokenize="none") / 100` with its defaults:
    n-grams of 1 to 4 tokens or to the output's length (effective order); orders without a match count 1 / 2, 1 / 4 ...
    of a match (the "exp" smoothing of Chen & Cherry, 2014, method 3); brevity penalty.

    Args:
        output: int64 (n, T), tokens from the left, -1 after the last.
        ref: int64 (n, R), -1 after the last; any other number that `output` never holds is a token without a match.
    """
    said, wanted = (output != -1).sum(1), (ref != -1).sum(1)
    hit = (output.unsqueeze(2) == ref.unsqueeze(1)) & (output != -1).unsqueeze(2)  # (n, T, R)
    twin = (output.unsqueeze(2) == output.unsqueeze(1)) & (output != -1).unsqueeze(2)  # (n, T, T)
    first_hit, first_twin = hit, twin
    total_log = torch.zeros(len(output), dtype=torch.float64, device=output.device)
    halved = torch.ones_like(total_log)
    some = torch.zeros_like(said, dtype=torch.bool)
    for order in range(1, ORDERS + 1):
        if order > 1:
            hit = _longer(hit, first_hit, order - 1)
            twin = _longer(twin, first_twin, order - 1)
        # The k-th of equal n-grams matches where the reference holds at least k of them (clipped counts).
        nth = twin.tril(-1).sum(2)
        right = ((nth < hit.sum(2)).sum(1)).double()
        total = (said - order + 1).clamp_min(0)
        counted, none = total > 0, right == 0
        halved = torch.where(counted & none, halved * 2, halved)
        precision = torch.where(none, 1 / halved, right) / total.clamp_min(1)
        total_log += torch.where(counted, precision.log(), 0.0)
        some |= ~none
    mean = total_log / said.clamp(1, ORDERS)
    brevity = (1 - wanted.double() / said.clamp_min(1)).clamp_max(0).exp()
    return torch.where(some, brevity * mean.exp(), 0.0)


def _longer(shorter: Tensor, one: Tensor, shift: int) -> Tensor:
    """Whether the n-grams one longer are equal: those before are, and so are the tokens `shift` further on."""
    out = torch.zeros_like(shorter)
    if shift < min(one.shape[1:]):
        out[:, : one.shape[1] - shift, : one.shape[2] - shift] = (
            shorter[:, : one.shape[1] - shift, : one.shape[2] - shift] & one[:, shift:, shift:]
        )
    return out
