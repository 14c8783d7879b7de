"""What the text tasks share (limits, dealing), and two tasks of the embedded generator; others have their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from advgym.core.goals import ClassGoal, Goal
from advgym.core.kinds.sequences import SequenceGoal
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim
from advgym.envs.text import show
from advgym.envs.text.candidates import lexicons
from advgym.envs.text.data import corpora, grammar, news
from advgym.envs.text.inputs.slots import make_randomise
from advgym.envs.text.inputs.vocabulary import Lexicon, pad_rows
from advgym.envs.text.measures import columns
from advgym.envs.text.perturb.words import TextBatch
from advgym.envs.text.tasks.options import Headline, Limited
from advgym.envs.text.victims import own, recipes
from advgym.errors import AdvgymError, unknown
from advgym.lib.drawn import SPLIT, Drawn, read_drawn
from advgym.lib.options import takes

REVIEW_CHOICES = 6  # substitutes of a word at most
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Texts:
    """A split as tensors: clean int64 (N, S, G) and labels; paraphrases int64 (N, S, C, G), or None for word swaps."""

    clean: Tensor
    labels: Tensor
    segments: Tensor | None = None


def word_limit(options: Any, words: Tensor) -> Tensor:
    """Most swaps of texts of int64 (n,) words: the lesser of `edits` and floor(`share` * words), at least 1."""
    edits, share = options.edits, options.share
    if not edits and not share:
        raise AdvgymError("edits=0 and share=0 leave no limit, so that every text is reached: give one of the two")
    limit = words.clone()
    if share:
        # 1e-9: 0.1 * 30 words is 3, not 2.
        limit = torch.minimum(limit, torch.floor(share * words.double() + 1e-9).long())
    if edits:
        limit = limit.clamp_max(edits)
    return limit.clamp_min(1)


# -- dealing -------------------------------------------------------------------------------------------------
def dealer(
    part_of: Callable[[str], Texts], sites: int, lexicon: Lexicon, limit: Callable[[Tensor], Tensor], slots: int = 0
) -> Callable[[str, list[int], Any], TextBatch]:
    """`Task.deal` over prepared splits; the table of a word swap is a look-up of each word's substitutes.

    Args:
        part_of: the samples of a split.
        sites: of the task.
        lexicon: whose table gives the substitutes.
        limit: most edits of samples with int64 (n,) sites in use.
        slots: choices that agents may append.
    """
    # One more than the limit: what lies just outside, or a probe on top of a full set, can be asked about.
    rows_max = int(limit(torch.arange(1, sites + 1)).max()) + 1
    table = torch.where(lexicon.swappable.unsqueeze(1), lexicon.table, -1)
    table = torch.cat([table, table.new_full((1, table.shape[1]), -1)])  # index -1: no word, no substitutes

    def deal(split: str, ids: list[int], device: Any = "cpu") -> TextBatch:
        part, index = part_of(split), torch.tensor(ids, dtype=torch.int64)
        clean = part.clean[index]
        segments = table[clean.squeeze(2)].unsqueeze(3) if part.segments is None else part.segments[index]
        many = (clean >= 0).any(2).sum(1)
        tensors = (index, part.labels[index], clean, segments, limit(many))
        here = [t.to(device) for t in tensors]
        return TextBatch(
            here[0], here[1], here[2], here[3], limit=here[4], rows_max=rows_max, lexicon=lexicon, slots=slots
        )

    return deal


def _task(
    spec: Spec, options: Limited, victim: Victim, goal: Goal, sizes: Mapping[str, int],
    part_of: Callable[[str], Texts], sites: int, lexicon: Lexicon,
) -> Task:  # fmt: skip
    return Task(
        spec.name, victim, goal, spec.threat, sizes=sizes,
        deal=dealer(part_of, sites, lexicon, partial(word_limit, options), options.slots),
        context={"vocabulary": lexicon.vocabulary.words, "strings": lexicon.vocabulary.strings,
                 "synonyms": lexicon.near, "frequency": lexicon.frequency},
        randomise=make_randomise(lexicon.near),
        show=show.show, line=show.line, columns=columns.COLUMNS, offers=frozenset({"text", "words"}),
        tells=lambda split, ids: {"words": (part_of(split).clean[ids] >= 0).any(2).sum(1).tolist()},
    )  # fmt: skip


def _flat(corpus: corpora.Corpus, lexicon: Lexicon, width: int) -> dict[str, Texts]:
    out = {}
    for split, texts in corpus.texts.items():
        ids = pad_rows([lexicon.vocabulary.encode(t) for t in texts], width)
        out[split] = Texts(ids.unsqueeze(2), torch.tensor(corpus.labels[split]))
    return out


def _check_name(spec: Spec, allowed: str) -> Drawn | None:
    """Refuse any dataset but the task's own; that one may be drawn by a seed (`NAME#SEED:COUNT`)."""
    found = spec.load_dataset()
    drawn = read_drawn(found)
    if (drawn.name if drawn else found) != allowed:
        raise unknown("dataset", found, [allowed], f"{spec.name} has the embedded one alone; text/wordswap takes "
                           "your own samples.")  # fmt: skip
    if spec.samples is not None:
        raise AdvgymError(f"{spec.name} generates its samples; text/wordswap takes your own")
    return drawn


def _with(
    drawn: Drawn | None, sizes: Mapping[str, int], part_of: Callable[[str], Texts], make: Callable[[int, int], Texts]
) -> tuple[Mapping[str, int], Callable[[str], Texts]]:
    """Sizes and samples of a corpus, with those that a seed draws where there is one."""
    if drawn is None:
        return sizes, part_of
    more = make(drawn.seed, drawn.count)
    return {**sizes, SPLIT: drawn.count}, lambda split: more if split == SPLIT else part_of(split)


# -- factories -----------------------------------------------------------------------------------------------
@cache
def _reviews() -> tuple[dict[str, Texts], Lexicon]:
    corpus = corpora.reviews()
    lexicon = lexicons.lexicon_of(corpus, grammar.synonyms(), REVIEW_CHOICES)
    return _flat(corpus, lexicon, grammar.SHORT), lexicon


@takes(Limited)
def synth_wordswap(spec: Spec, options: Limited) -> Task:
    """Generated short reviews; a site is a word, a choice another word of its synset."""
    drawn = _check_name(spec, "synth-reviews")
    parts, lexicon = _reviews()

    def make(seed: int, count: int) -> Texts:
        ids = pad_rows([lexicon.vocabulary.encode(t) for t in corpora.drawn_reviews(seed, count)], grammar.SHORT)
        return Texts(ids.unsqueeze(2), torch.tensor(corpora.drawn_labels(seed, count)))

    sizes, part_of = _with(drawn, corpora.SIZES, parts.__getitem__, make)
    goal = ClassGoal(2, spec.threat.goal, ["blame", "praise"])
    return _task(spec, options, own.task_victim(spec, 2), goal, sizes, part_of, grammar.SHORT, lexicon)


@cache
def _headlines() -> tuple[dict[str, Texts], Lexicon]:
    corpus, heads = corpora.headlines()
    lexicon = lexicons.lexicon_of(corpus, grammar.synonyms(), REVIEW_CHOICES)
    return {split: _news(texts, heads[split], lexicon) for split, texts in corpus.texts.items()}, lexicon


def _news(texts: list[list[str]], heads: list[list[str]], lexicon: Lexicon) -> Texts:
    ids = pad_rows([lexicon.vocabulary.encode(t) for t in texts], news.ARTICLE)
    return Texts(ids.unsqueeze(2), recipes.head_tokens(heads))


@takes(Headline)
def synth_headline(spec: Spec, options: Headline) -> Task:
    """Generated short news and the headline a victim writes; word swaps in the news."""
    drawn = _check_name(spec, "synth-headlines")
    parts, lexicon = _headlines()
    sizes, part_of = _with(
        drawn,
        corpora.SIZES,
        parts.__getitem__,
        lambda seed, count: _news(*corpora.drawn_headlines(seed, count), lexicon),
    )
    goal = SequenceGoal(news.HEAD_WORDS, news.HEADLINE, spec.threat.goal, options.keywords)
    return _task(spec, options, own.task_victim(spec), goal, sizes, part_of, news.ARTICLE, lexicon)
