"""Word and character errors of transcripts as rows of symbol ids, batched."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.core.rng import mix


def lengths(ids: Tensor) -> Tensor:
    """Entries before the padding of -1, int64 (n,)."""
    return (ids >= 0).sum(1)


def edit_distance(a: Tensor, b: Tensor) -> Tensor:
    """Levenshtein's distance of each pair of rows, int64 (n,); rows are non-negative ids padded with -1."""
    best = _sweep(a, b, within=False)
    return best.gather(1, lengths(a).unsqueeze(1)).squeeze(1)


def phrase_distance(text: Tensor, phrase: Tensor, space: int = 0) -> Tensor:
    """Edits from each text to the nearest one that has the phrase in it, int64 (n,); 0 where it is there (Sellers 1980).

    Args:
        text, phrase: int64 rows padded with -1.
        space: the symbol between words, for a phrase of whole words; 0 where there is none.
    """
    if space:
        text, phrase = _between(text, space), _between(phrase, space)
    best = _sweep(text, phrase, within=True)
    place = torch.arange(best.shape[1], device=text.device)
    return torch.where(place <= lengths(text).unsqueeze(1), best, torch.iinfo(torch.int64).max).amin(1)


def _between(ids: Tensor, space: int) -> Tensor:
    """Rows with a space before and behind."""
    wide = torch.cat([torch.full_like(ids[:, :1], space), ids, torch.full_like(ids[:, :1], -1)], 1)
    return wide.scatter(1, (lengths(ids) + 1).unsqueeze(1), space)


def _sweep(a: Tensor, b: Tensor, *, within: bool) -> Tensor:
    """The last row of the table of distances of every b to every beginning of a, int64 (n, wide + 1).

    Dynamic programming over the rows of `b` (the shorter ones, best), vectorised over n and over `a`: an insertion
    run is a running minimum, new[j] = min_k<=j (candidate[k] - k) + j. `within`: what stands before in a is free.
    """
    end_a, end_b = lengths(a), lengths(b)
    n, wide = len(a), int(end_a.max()) if len(a) else 0
    a = a[:, :wide]
    place = torch.arange(wide + 1, device=a.device).expand(n, -1)
    best = torch.zeros_like(place) if within else place
    for i in range(int(end_b.max()) if n else 0):
        swap = best[:, :-1] + (a != b[:, i : i + 1])
        drop = torch.cat([best[:, :1] + 1, torch.minimum(swap, best[:, 1:] + 1)], 1)
        step = (drop - place).cummin(1).values + place
        best = torch.where((i < end_b).unsqueeze(1), step, best)
    return best


def words(ids: Tensor, space: int = 1) -> Tensor:
    """Words of symbol rows as 63-bit hashes, int64 (n, ceil(L / 2)), padded with -1.

    A word is a maximal run of symbols other than `space`; equal words have equal hashes wherever they stand.
    """
    n, wide = ids.shape
    most = (wide + 1) // 2
    inside = (ids >= 0) & (ids != space)
    before = torch.cat([torch.zeros_like(inside[:, :1]), inside[:, :-1]], 1)
    start = inside & ~before
    which = start.long().cumsum(1) - 1
    place = torch.arange(wide, device=ids.device).expand(n, -1)
    first = torch.where(start, place, 0).cummax(1).values
    value = torch.where(inside, mix((ids + 1) * 65_537 + ((place - first) << 32)), 0)
    total = torch.zeros(n, most + 1, dtype=torch.int64, device=ids.device)
    total.scatter_add_(1, torch.where(inside, which, most), value)
    count = start.sum(1, keepdim=True)
    there = torch.arange(most, device=ids.device) < count
    return torch.where(there, mix(total[:, :most]) & 0x7FFFFFFFFFFFFFFF, -1)


def word_errors(hyp: Tensor, ref: Tensor, space: int = 1) -> tuple[Tensor, Tensor]:
    """(word edits, words of the reference), int64 (n,) each."""
    ref_words = words(ref, space)
    return edit_distance(words(hyp, space), ref_words), lengths(ref_words)


def wer(hyp: Tensor, ref: Tensor, space: int = 1) -> Tensor:
    """Word error rate per row, float32 (n,): edits / words of the reference (of an empty one: edits)."""
    edits, count = word_errors(hyp, ref, space)
    return edits / count.clamp_min(1)


def cer(hyp: Tensor, ref: Tensor) -> Tensor:
    """Character error rate per row, float32 (n,): edits / symbols of the reference, spaces included."""
    return edit_distance(hyp, ref) / lengths(ref).clamp_min(1)


def corpus_wer(hyp: Tensor, ref: Tensor, space: int = 1) -> float:
    """All word edits over all reference words (the usual figure of a recogniser)."""
    edits, count = word_errors(hyp, ref, space)
    return float(edits.sum() / count.sum().clamp_min(1))
