"""The tasks of swaps, deletions, insertions and merges in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from advgym.core.task import Spec, Task
from advgym.envs.text.candidates import Source, read_sources
from advgym.envs.text.candidates.kept import texts_of
from advgym.envs.text.inputs.spacing import CLOSE, PAIR
from advgym.envs.text.inputs.vocabulary import pad_rows
from advgym.envs.text.perturb.space import Space
from advgym.envs.text.perturb.word_edits import FILLERS, OPERATIONS, InsertionBatch, interleaved, packed
from advgym.envs.text.tasks.given import encoded, make_task, read_given, space_of, spaces_of
from advgym.envs.text.tasks.options import Insertions
from advgym.envs.text.tasks.swapping import limits
from advgym.errors import AdvgymError, unknown
from advgym.lib.options import takes


@takes(Insertions)
def insertion(spec: Spec, options: Insertions) -> Task:
    """Words swapped, deleted, put in, or two made one, in Movie Reviews, the embedded reviews, or the caller's own."""
    given = read_given(spec, options)
    words, source = _insertions(options.insertions)
    wanted = _operations(options.operations)
    more = tuple(words) if source is None or source.alphabet is None else tuple(source.alphabet())
    space = space_of(given, options, more)
    if space.whole:
        raise AdvgymError("candidates='vocabulary' has no table of insertions and merges; text/wordswap takes it")
    choices, parts = options.choices, encoded(given, space.lexicon.vocabulary, space.splits)
    rows_max = int(limits(given, options, torch.arange(1, given.width + 1)).max()) + 1
    gaps, between = spaces_of(given, space.splits)
    blank = between.index(given.between) if gaps else 0
    opened = torch.tensor([*(w.endswith(PAIR) for w in space.lexicon.vocabulary.words), False])
    build = _builder(space, words, source, wanted, choices)

    def deal(split: str, ids: list[int], device: Any = "cpu") -> InsertionBatch:
        index = torch.tensor(ids, dtype=torch.int64)
        clean, labels = (part[index] for part in parts[split])
        segments, exists = build([given.texts[split][i] for i in ids], clean)
        tensors = [t.to(device) for t in (index, labels, interleaved(clean), segments.unsqueeze(3), exists)]
        return InsertionBatch(
            *tensors, limit=limits(given, options, (clean >= 0).sum(1)).to(device), rows_max=rows_max,
            lexicon=space.lexicon, laws=space.laws, spaces=between,
            gaps=_interleaved(gaps[split][ids], blank, opened[clean[:, 0]]).to(device) if gaps else None,
        )  # fmt: skip

    task = make_task(spec, given, space, deal)
    return replace(task, offers=_offers(task.offers, source, wanted))


def _offers(of_space: frozenset[str], source: Source | None, wanted: frozenset[str]) -> frozenset[str]:
    """What the table is to agents: a language model's where it writes all of it."""
    puts = wanted & {"insert", "merge"}
    model = "insert" not in wanted or (source is not None and "language-model" in source.offers)
    gone = {"words"} if model else {"words", "language-model"}
    return (of_space - gone) | ({"insertions"} if puts else set())


def _interleaved(gaps: Tensor, between: int, opened: Tensor) -> Tensor:
    """Gaps of words int64 (n, L + 1) as those of slots (n, 2 L + 2); `between` stands before what is put in.

    What comes before the first word of a text stands after what leads the text; of the pairs in `opened`, bool (n,),
    the second text begins after the first word.
    """
    out = gaps.new_full((len(gaps), 2 * gaps.shape[1]), between)
    out[:, 1:-1:2] = gaps[:, :-1]
    out[:, 0], out[:, 1], out[:, -1] = gaps[:, 0], between, gaps[:, -1]
    if out.shape[1] > 4:
        out[:, 2] = torch.where(opened, out[:, 3], out[:, 2])
        out[:, 3] = torch.where(opened, between, out[:, 3])
    return out


def _insertions(value: Any) -> tuple[Sequence[str], Source | None]:
    if value == "fillers":
        return FILLERS, None
    if isinstance(value, str) and ":" in value:
        (source,) = read_sources(value)
        if source.gaps is None:
            raise AdvgymError(f"insertions={value!r} cannot fill gaps; 'masked-lm:NAME' can, or give a list of words")
        return (), source
    if isinstance(value, list | tuple) and all(isinstance(w, str) and len(w.split()) == 1 for w in value):
        return tuple(value), None
    raise AdvgymError(f"insertions is 'fillers', a list of single words, or 'masked-lm:NAME', not {value!r}")


def _operations(value: Any) -> frozenset[str]:
    found = [value] if isinstance(value, str) else list(value)
    for name in found:
        if name not in OPERATIONS:
            raise unknown("operation", name, OPERATIONS)
    if not found:
        raise AdvgymError(f"operations names at least one of {', '.join(OPERATIONS)}")
    return frozenset(found)


def _builder(
    space: Space, words: Sequence[str], source: Source | None, wanted: frozenset[str], choices: int
) -> Callable[[Sequence[list[str]], Tensor], tuple[Tensor, Tensor]]:
    """Makes (segments, exists), int64 and bool (n, S, 1 + C), of texts with their words int64 (n, L)."""
    table, editable = space.table(), space.sites()
    encode = space.lexicon.vocabulary.encode
    # The other text of a pair, the first or the second.
    first, last = (
        torch.tensor([w.endswith(m) for w in space.lexicon.vocabulary.words] + [False]) for m in (PAIR, CLOSE)
    )
    listed = packed(torch.tensor([w for w in encode(words) if w >= 0], dtype=torch.int64), choices)

    def in_context(ask: str, texts: Sequence[list[str]], places: int) -> Tensor | None:
        """int64 (n, places, C): what models put into gaps, or for pairs of words."""
        sources = [source] if ask == "gaps" else [s for s in space.inside if s.merges is not None]
        found = [s for s in sources if s is not None]
        if not found:
            return None
        rows = texts_of(found[0], texts, ask)
        ids = [pad_rows([[w for w in encode(row) if w >= 0][:choices] for row in text], choices) for text in rows]
        return torch.stack([torch.nn.functional.pad(t, (0, 0, 0, places - len(t)), value=-1) for t in ids])

    def build(texts: Sequence[list[str]], clean: Tensor) -> tuple[Tensor, Tensor]:
        n, longest = clean.shape
        some, free = clean >= 0, editable[clean]
        swaps = space.substitutes(table, texts, clean)
        none = swaps.new_full((n, 1, choices), -1)
        segments = swaps.new_full((n, 2 * longest + 1 + max(longest - 1, 0), 1 + choices), -1)
        exists = torch.zeros(segments.shape, dtype=torch.bool)
        slots = slice(1, 2 * longest, 2)
        if "swap" in wanted:
            segments[:, slots, 1:] = swaps
        if "delete" in wanted:
            exists[:, slots, 0] = free
        if "insert" in wanted:
            # A gap has a word on one of its sides, and does not lie beyond the text of a pair that stays.
            begins = torch.cat([some, some[:, :0].new_zeros(n, 1)], 1)
            ends = torch.cat([begins[:, :0].new_zeros(n, 1), some], 1)
            gap = (begins | ends) & (longest > 0)
            gap[:, :-1] &= ~first[clean]
            gap[:, 1:] &= ~last[clean]
            fill = in_context("gaps", texts, longest + 1)
            put = listed.expand(n, longest + 1, -1) if fill is None else fill
            segments[:, 0 : 2 * longest + 1 : 2, 1:] = torch.where(gap.unsqueeze(2), put, -1)
        if "merge" in wanted and longest > 1:
            both = torch.stack([swaps[:, :-1], swaps[:, 1:]], 3).flatten(2)
            said = in_context("merges", texts, longest - 1)
            merged = packed(both if said is None else torch.cat([said, both], 2), choices)
            pair = (free[:, :-1] & free[:, 1:]).unsqueeze(2)
            segments[:, 2 * longest + 1 :, 1:] = torch.where(pair, merged, none)
        exists[:, :, 1:] = segments[:, :, 1:] >= 0
        return segments, exists

    return build
