"""The text tasks: word swaps, paraphrases, headlines, Movie Reviews, and the caller's own sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgym.drawn import SPLIT, Drawn, read_drawn
from advgym.envs.text import data, grammar, news, own, show, synonyms, victims
from advgym.envs.text.goals import SequenceGoal
from advgym.envs.text.inputs import TextInput, make_randomise
from advgym.envs.text.vocabulary import Lexicon, Vocabulary, make_lexicon, neighbours, pad_rows
from advgym.envs.text.words import TextBatch
from advgym.errors import AdvgymError, unknown
from advgym.goals import ClassGoal, Goal
from advgym.task import Spec, Task
from advgym.victim import Victim

REVIEW_CHOICES = 6  # substitutes of a word at most
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Texts:
    """A split as tensors: clean int64 (N, S, G) and labels; paraphrases int64 (N, S, C, G), or None for word swaps."""

    clean: Tensor
    labels: Tensor
    segments: Tensor | None = None


# -- options -------------------------------------------------------------------------------------------------
def whole(options: Mapping[str, Any], key: str, least: int = 0) -> int:
    """An option that is a whole number."""
    value = options.get(key, least)
    try:
        number = int(value)
        fine = number == float(value) and number >= least and not isinstance(value, bool)
    except (TypeError, ValueError, OverflowError):
        fine = False
    if not fine:
        raise AdvgymError(f"{key} is a whole number of at least {least}, not {value!r}")
    return number


def word_limit(options: Mapping[str, Any], words: Tensor) -> Tensor:
    """Most swaps of texts of int64 (n,) words: the lesser of `edits` and floor(`share` * words), at least 1."""
    edits = whole(options, "edits")
    try:
        share = float(options.get("share", 0.0))
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise AdvgymError(f"share is a fraction of the words between 0 and 1, not {options.get('share')!r}")
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
    spec: Spec, victim: Victim, goal: Goal, sizes: Mapping[str, int], part_of: Callable[[str], Texts], sites: int,
    lexicon: Lexicon, limit: Callable[[Tensor], Tensor] | None = None,
) -> Task:  # fmt: skip
    options = spec.threat.constraint
    most = limit or partial(word_limit, options)
    return Task(
        spec.name, victim, goal, spec.threat, sizes=sizes,
        deal=dealer(part_of, sites, lexicon, most, whole(options, "slots")),
        context={"vocabulary": lexicon.vocabulary.words, "strings": lexicon.vocabulary.strings,
                 "synonyms": lexicon.near, "frequency": lexicon.frequency},
        randomise=make_randomise(lexicon.near),
        show=show.show, line=show.line,
    )  # fmt: skip


def _flat(corpus: data.Corpus, lexicon: Lexicon, width: int) -> dict[str, Texts]:
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
    corpus = data.reviews()
    lexicon = synonyms.lexicon_of(corpus, grammar.synonyms(), REVIEW_CHOICES)
    return _flat(corpus, lexicon, grammar.SHORT), lexicon


def synth_wordswap(spec: Spec) -> Task:
    """Generated short reviews; a site is a word, a choice another word of its synset."""
    drawn = _check_name(spec, "synth-reviews")
    parts, lexicon = _reviews()

    def make(seed: int, count: int) -> Texts:
        ids = pad_rows([lexicon.vocabulary.encode(t) for t in data.drawn_reviews(seed, count)], grammar.SHORT)
        return Texts(ids.unsqueeze(2), torch.tensor(data.drawn_labels(seed, count)))

    sizes, part_of = _with(drawn, data.SIZES, parts.__getitem__, make)
    goal = ClassGoal(2, spec.threat.goal, ["blame", "praise"])
    return _task(spec, own.task_victim(spec, 2), goal, sizes, part_of, grammar.SHORT, lexicon)


@cache
def _long_lexicon() -> Lexicon:
    """All words of the grammar, for paraphrases may use any; the statistics of what was said."""
    corpus, vocabulary = data.long_reviews(), Vocabulary(grammar.review_words())
    train = pad_rows([vocabulary.encode(t) for t in corpus.texts["train"]], corpus.longest)
    near = neighbours(vocabulary, grammar.synonyms(), synonyms.NEIGHBOURS)
    return make_lexicon(vocabulary, near, REVIEW_CHOICES, train=train, labels=torch.tensor(corpus.labels["train"]))


@cache
def _long_reviews(split: str) -> Texts:
    return _sentences(data.wordings(split), data.long_reviews().labels[split], _long_lexicon())


def _sentences(reviews: Sequence[data.LongReview], labels: list[int], lexicon: Lexicon) -> Texts:
    sites, width, choices = grammar.SENTENCES, grammar.SENTENCE, len(grammar.FRAMES[0]) - 1
    clean, wordings = [], []
    for review in reviews:
        for i in range(sites):
            said, others = review[i] if i < len(review) else ([], [[]] * choices)
            clean.append(lexicon.vocabulary.encode(said))
            wordings.extend(lexicon.vocabulary.encode(o) for o in others)
    return Texts(
        pad_rows(clean, width).view(-1, sites, width),
        torch.tensor(labels),
        pad_rows(wordings, width).view(-1, sites, choices, width),
    )


def synth_paraphrase(spec: Spec) -> Task:
    """Generated reviews of 3-5 sentences; a site is a sentence, a choice another wording of its meaning."""
    drawn = _check_name(spec, "synth-long-reviews")
    most = whole(spec.threat.constraint, "sentences", 1)
    goal = ClassGoal(2, spec.threat.goal, ["blame", "praise"])
    victim, lexicon = own.task_victim(spec, 2), _long_lexicon()

    def make(seed: int, count: int) -> Texts:
        return _sentences(data.wordings(seed, count), data.drawn_labels(seed, count), lexicon)

    sizes, part_of = _with(drawn, data.LONG_SIZES, _long_reviews, make)
    return _task(spec, victim, goal, sizes, part_of, grammar.SENTENCES, lexicon,
                 lambda many: many.clamp(1, most))  # fmt: skip


@cache
def _headlines() -> tuple[dict[str, Texts], Lexicon]:
    corpus, heads = data.headlines()
    lexicon = synonyms.lexicon_of(corpus, grammar.synonyms(), REVIEW_CHOICES)
    return {split: _news(texts, heads[split], lexicon) for split, texts in corpus.texts.items()}, lexicon


def _news(texts: list[list[str]], heads: list[list[str]], lexicon: Lexicon) -> Texts:
    ids = pad_rows([lexicon.vocabulary.encode(t) for t in texts], news.ARTICLE)
    return Texts(ids.unsqueeze(2), victims.head_tokens(heads))


def synth_headline(spec: Spec) -> Task:
    """Generated short news and the headline a victim writes; word swaps in the news."""
    drawn = _check_name(spec, "synth-headlines")
    parts, lexicon = _headlines()
    sizes, part_of = _with(
        drawn, data.SIZES, parts.__getitem__, lambda seed, count: _news(*data.drawn_headlines(seed, count), lexicon)
    )
    keywords = whole(spec.threat.constraint, "keywords", 1)
    goal = SequenceGoal(news.HEAD_WORDS, news.HEADLINE, spec.threat.goal, keywords)
    return _task(spec, own.task_victim(spec), goal, sizes, part_of, news.ARTICLE, lexicon)


def _movie_parts(corpus: data.Corpus, source: Any, choices: int) -> tuple[dict[str, Texts], Lexicon]:
    lexicon = synonyms.lexicon_of(corpus, synonyms.load_synonyms(source), choices, tuple(data.STOPWORDS))
    return _flat(corpus, lexicon, corpus.longest), lexicon


@cache
def _movie_lexicon(dataset: str, folder: Path, source: str, choices: int) -> tuple[dict[str, Texts], Lexicon]:
    return _movie_parts(data.movie_reviews(dataset), source, choices)


def mr_wordswap(spec: Spec) -> Task:
    """Movie Reviews (Pang & Lee, 2005); a choice is a counter-fitted (Mrksic et al., 2016) or WordNet neighbour."""
    if spec.samples is not None:
        raise AdvgymError(f"{spec.name} reads its own samples; text/wordswap takes yours")
    options = spec.threat.constraint
    choices, source = whole(options, "choices", 1), options["synonyms"]
    dataset = spec.load_dataset()
    corpus = data.movie_reviews(dataset)
    if isinstance(source, str):
        parts, lexicon = _movie_lexicon(dataset, data.mr_folder(dataset), source, choices)
    else:
        parts, lexicon = _movie_parts(corpus, source, choices)
    goal = ClassGoal(2, spec.threat.goal, ["negative", "positive"])
    return _task(spec, own.task_victim(spec, 2), goal, corpus.sizes, parts.__getitem__, corpus.longest, lexicon)


def wordswap(spec: Spec) -> Task:
    """The caller's victim and (sentence, label) pairs; `list[str]` goes in, scores (n, classes) come out."""
    if spec.samples is None:
        raise AdvgymError(f'task {spec.name!r} has no data of its own: pass samples=[("a fine film", 1), ...]')
    given, options = synonyms.own_samples(spec.samples), spec.threat.constraint
    choices = whole(options, "choices", 1)
    lexicon = synonyms.own_lexicon(given, synonyms.load_synonyms(options["synonyms"]), choices, tuple(data.STOPWORDS))
    width = max(1, max(map(len, given.texts)))
    ids = pad_rows([lexicon.vocabulary.encode(t) for t in given.texts], width)
    texts = Texts(ids.unsqueeze(2), torch.tensor(given.labels))
    labels = max(2, max(given.labels) + 1)
    victim = own.task_victim(spec, labels)
    classes = own.count_classes(victim, TextInput(ids[:1], lexicon.vocabulary))
    for i, label in enumerate(given.labels):
        data.check_label(label, classes, f"sample {i}")
    goal = ClassGoal(classes, spec.threat.goal)
    return _task(spec, victim, goal, dict.fromkeys(SPLITS, len(ids)), lambda split: texts, width, lexicon)
