"""Word swaps: a site is a word, a choice a substitute (a synonym, a typo, a look-alike, any word of the vocabulary)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.core.task import Spec, Task
from advgym.envs.text.perturb.every_word import EveryWordBatch
from advgym.envs.text.perturb.space import Space
from advgym.envs.text.perturb.words import TextBatch
from advgym.envs.text.tasks.given import Given, encoded, make_task, read_given, space_of, spaces_of
from advgym.envs.text.tasks.options import Swaps, word_limit
from advgym.errors import AdvgymError
from advgym.lib.options import takes


@takes(Swaps)
def wordswap(spec: Spec, options: Swaps) -> Task:
    """Word swaps in Movie Reviews (Pang & Lee, 2005), in the embedded reviews, or in the caller's own sentences.

    Own: a victim and (sentence, label) pairs; `list[str]` goes in, scores (n, classes) come out.
    """
    given = read_given(spec, options)
    space = space_of(given, options)
    if space.whole and options.slots:
        raise AdvgymError("candidates='vocabulary' holds every word: there is nothing to append, set slots=0")
    return make_task(spec, given, space, dealer(given, space, options))


def limits(given: Given, options: Any, many: Tensor) -> Tensor:
    """Most edits of texts of int64 (n,) words; the text of a pair that stays is no word."""
    return word_limit(options, (many - int(given.paired)).clamp_min(0))


def dealer(given: Given, space: Space, options: Swaps) -> Any:
    """`Task.deal`."""
    lexicon, slots = space.lexicon, options.slots
    rows_max = int(limits(given, options, torch.arange(1, given.width + 1)).max()) + 1
    parts = encoded(given, lexicon.vocabulary, space.splits)
    gaps, between = spaces_of(given, space.splits)
    table, able, open_ = space.table(), space.words(), space.sites()

    def deal(split: str, ids: list[int], device: Any = "cpu") -> TextBatch:
        index = torch.tensor(ids, dtype=torch.int64)
        words, labels = (part[index] for part in parts[split])
        limit = limits(given, options, (words >= 0).sum(1)).to(device)
        index, labels, clean = index.to(device), labels.to(device), words.unsqueeze(2).to(device)
        here = gaps[split][ids].to(device) if gaps else None
        if space.whole:
            return EveryWordBatch(
                index, labels, clean, open_[words].to(device), able.to(device), limit=limit, rows_max=rows_max,
                lexicon=lexicon, laws=space.laws, gaps=here, spaces=between,
            )  # fmt: skip
        segments = space.substitutes(table, [given.texts[split][i] for i in ids], words)
        return TextBatch(
            index, labels, clean, segments.unsqueeze(3).to(device), limit=limit, rows_max=rows_max, lexicon=lexicon,
            slots=slots, laws=space.laws, gaps=here, spaces=between,
        )  # fmt: skip

    return deal
