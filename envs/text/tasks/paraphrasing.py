"""The paraphrase tasks: generated reviews, Movie Reviews, and the caller's own texts; sentences and words at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgym.core.goals import ClassGoal, Goal
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim
from advgym.envs.text import show
from advgym.envs.text.candidates import lexicons, paraphrases
from advgym.envs.text.candidates.rewording import tokens
from advgym.envs.text.data import corpora, grammar, samples
from advgym.envs.text.goals import answers
from advgym.envs.text.inputs.slots import make_randomise
from advgym.envs.text.inputs.spacing import Spacing
from advgym.envs.text.inputs.vocabulary import Lexicon, make_lexicon, neighbours, pad_rows, with_unknown
from advgym.envs.text.perturb.space import Space
from advgym.envs.text.perturb.wordings import JointBatch
from advgym.envs.text.tasks.embedded import REVIEW_CHOICES
from advgym.envs.text.tasks.given import check_name, labelled, needs, split_of_own
from advgym.envs.text.tasks.options import BUDGET, Budgets, Paraphrased
from advgym.envs.text.victims import own
from advgym.envs.text.victims.hub import fit_gaps
from advgym.errors import AdvgymError
from advgym.lib.drawn import SPLIT
from advgym.lib.options import number, takes

MR_SENTENCES = 3  # of a Movie Review; nearly all have one
Reworded = list[tuple[list[str], list[list[str]]]]  # the sentences of a text, each with its paraphrases, as words


@dataclass(frozen=True)
class Worded:
    """A split as tensors: wordings int64 (N, S, V, G), wording 0 the clean one, and labels int64 (N,).

    `gaps` and `spaces` are those of `JointBatch`.
    """

    wordings: Tensor
    labels: Tensor
    gaps: Tensor | None = None
    spaces: tuple[str, ...] = ()


def budget(options: Budgets | Paraphrased, key: str, many: Tensor) -> Tensor:
    """Most sentences or words of texts of int64 (n,) `many`: a whole number is a count, a number below 1 a share.

    A share above 0 allows at least one; 0 allows none.

    >>> options = Budgets(sentences=4, words=0.2)
    >>> budget(options, "words", torch.tensor([3, 12])), budget(options, "sentences", torch.tensor([3, 12]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    value = getattr(options, key)
    found = number(value)
    if not (0 <= found < 1 or (found >= 1 and found.is_integer())):
        raise AdvgymError(f"{key} is {BUDGET}, not {value!r}")
    if found >= 1:
        return many.clamp_max(int(min(found, 1 << 30)))
    if found == 0:
        return torch.zeros_like(many)
    return torch.minimum(torch.floor(found * many.double() + 1e-9).long().clamp_min(1), many)


def dealer(
    part_of: Callable[[str], Worded],
    lexicon: Lexicon,
    table: Tensor,
    options: Budgets | Paraphrased,
    longest: int,
    sentences: int,
) -> Callable[[str, list[int], Any], JointBatch]:
    """`Task.deal`: the substitutes of every word of every wording are looked up.

    Args:
        part_of: the samples of a split.
        lexicon: of the task.
        table: int64 (words + 1, W), the substitutes of each word; index -1, no word, has none.
        options: with `sentences` and `words`.
        longest: words of the longest clean text.
        sentences: S.
    """
    most = [int(budget(options, k, torch.tensor([n]))) for k, n in (("sentences", sentences), ("words", longest))]
    # One more: what lies just outside can be asked about. Two with words, for a word may bring its wording along.
    rows_max = sum(most) + (2 if most[1] else 1)
    if not most[1]:
        table = table[:, :0]

    def deal(split: str, ids: list[int], device: Any = "cpu") -> JointBatch:
        part, index = part_of(split), torch.tensor(ids, dtype=torch.int64)
        wordings = part.wordings[index]
        here = wordings[:, :, 0] >= 0
        budgets = torch.stack(
            [budget(options, "sentences", here.any(2).sum(1)), budget(options, "words", here.sum((1, 2)))], 1
        )
        tensors = [t.to(device) for t in (index, part.labels[index], wordings, table[wordings], budgets)]
        return JointBatch(
            tensors[0], tensors[1], tensors[2], tensors[3], budgets=tensors[4], rows_max=rows_max, lexicon=lexicon,
            gaps=None if part.gaps is None else part.gaps[index].to(device), spaces=part.spaces,
        )  # fmt: skip

    return deal


def make_joint(
    spec: Spec, options: Budgets | Paraphrased, victim: Victim, goal: Goal, sizes: Mapping[str, int],
    part_of: Callable[[str], Worded], lexicon: Lexicon, table: Tensor, longest: int, sentences: int,
) -> Task:  # fmt: skip
    """The task over prepared splits."""
    if not number(options.sentences) and not number(options.words):
        raise AdvgymError("sentences=0 and words=0 leave nothing to attack: give at least one of the two a budget")
    return Task(
        spec.name, victim, goal, spec.threat, sizes=sizes,
        deal=dealer(part_of, lexicon, table, options, longest, sentences),
        context={"vocabulary": lexicon.vocabulary.words, "strings": lexicon.vocabulary.strings,
                 "synonyms": lexicon.near, "frequency": lexicon.frequency},
        randomise=make_randomise(lexicon.near),
        show=show_joint, line=line_joint, draw=draw_joint, offers=frozenset({"text"}),
    )  # fmt: skip


def encode(texts: Sequence[Reworded], labels: Sequence[int], lexicon: Lexicon, shape: tuple[int, int, int]) -> Worded:
    """Texts as wordings of `shape` (S, V, G)."""
    sentences, versions, width = shape
    rows: list[list[int]] = []
    for text in texts:
        for i in range(sentences):
            said = [text[i][0], *text[i][1]] if i < len(text) else []
            rows += [lexicon.vocabulary.encode(w) for w in said] + [[]] * (versions - len(said))
    return Worded(pad_rows(rows, width).view(-1, sentences, versions, width), torch.tensor(labels))


def measure(texts: Sequence[Reworded]) -> tuple[tuple[int, int, int], int]:
    """((S, V, G), words of the longest clean text)."""
    sentences = max((len(t) for t in texts), default=1)
    versions = max((1 + len(others) for t in texts for _, others in t), default=2)
    width = max((len(w) for t in texts for said, others in t for w in (said, *others)), default=1)
    longest = max((sum(len(s) for s, _ in t) for t in texts), default=1)
    return (max(sentences, 1), max(versions, 2), max(width, 1)), max(longest, 1)


# -- factories -----------------------------------------------------------------------------------------------
@cache
def _long_lexicon() -> Lexicon:
    """All words of the grammar, for paraphrases may use any; the statistics of what was said."""
    corpus, vocabulary = corpora.long_reviews(), with_unknown(grammar.review_words())
    train = pad_rows([vocabulary.encode(t) for t in corpus.texts["train"]], corpus.longest)
    near = neighbours(vocabulary, grammar.synonyms(), lexicons.NEIGHBOURS)
    return make_lexicon(vocabulary, near, REVIEW_CHOICES, train=train, labels=torch.tensor(corpus.labels["train"]))


_LONG = (grammar.SENTENCES, len(grammar.FRAMES[0]), grammar.SENTENCE)


@cache
def _long_reviews(split: str) -> Worded:
    return encode(corpora.wordings(split), corpora.long_reviews().labels[split], _long_lexicon(), _LONG)


@takes(Budgets)
def synth_paraphrase(spec: Spec, options: Budgets) -> Task:
    """Generated reviews of 3-5 sentences; paraphrases by other templates, words by other words of their synset."""
    drawn = check_name(spec, "synth-long-reviews")
    goal = ClassGoal(2, spec.threat.goal, ["blame", "praise"])
    victim, lexicon = own.task_victim(spec, 2), _long_lexicon()
    sizes: dict[str, int] = dict(corpora.LONG_SIZES)
    part_of: Callable[[str], Worded] = _long_reviews
    if drawn is not None:
        labels = corpora.drawn_labels(drawn.seed, drawn.count)
        more = encode(corpora.wordings(drawn.seed, drawn.count), labels, lexicon, _LONG)
        sizes[SPLIT] = drawn.count
        part_of = lambda split: more if split == SPLIT else _long_reviews(split)  # noqa: E731
    longest = grammar.SENTENCES * grammar.SENTENCE
    table = torch.where(lexicon.swappable.unsqueeze(1), lexicon.table, -1)
    table = torch.cat([table, table.new_full((1, table.shape[1]), -1)])
    return make_joint(spec, options, victim, goal, sizes, part_of, lexicon, table, longest, grammar.SENTENCES)


def _tidy(text: str, known: frozenset[str]) -> list[str]:
    """Lower-case words, those that the corpus lacks with punctuation and contractions apart."""
    return [w for word in text.lower().split() for w in ([word] if word in known else tokens(word))]


def _space(corpus: corpora.Corpus, texts: Sequence[Reworded], options: Paraphrased, *, mine: bool) -> Space:
    """The substitutes of all words of a corpus and of its paraphrases."""
    others = [w for t in texts for _, wordings in t for w in wordings]
    wider = replace(
        corpus, texts={**corpus.texts, "wordings": others}, labels={**corpus.labels, "wordings": []}, gaps=None
    )
    space = Space(wider, needs(options), options.choices, dress_up=mine)
    if space.whole or space.inside:
        raise AdvgymError(
            f"candidates={options.candidates!r} depends on the context or offers all words: the words of "
            "paraphrases take tables ('counter-fitted', 'wordnet', 'synth', 'typos', a dict or a path)"
        )
    return space


@takes(Paraphrased)
def mr_paraphrase(spec: Spec, options: Paraphrased) -> Task:
    """Movie Reviews (Pang & Lee, 2005) with paraphrases by rules, by a table of yours, or by a model by name."""
    if spec.samples is not None:
        raise AdvgymError(f"{spec.name} reads its own samples; text/paraphrase takes yours")
    told, dataset = spec.threat.constraint, spec.load_dataset()
    corpus = corpora.movie_reviews(dataset)
    name = repr((dataset, corpora.digest_of(corpus), corpora.mr_folder(dataset), sorted(told.items(), key=str)))
    found = _movies.get(name)
    if found is None:
        found = _movie_parts(corpus, options)
        if all(isinstance(v, str | int | float) and Path(str(v)).suffix not in FILES for v in told.values()):
            _movies.clear()
            _movies[name] = found
    parts, space, shape, longest = found
    goal = ClassGoal(2, spec.threat.goal, ["negative", "positive"])
    sizes = {split: len(part.labels) for split, part in parts.items()}
    victim = own.task_victim(spec, 2)
    return make_joint(
        spec, options, victim, goal, sizes, parts.__getitem__, space.lexicon, space.table(), longest, shape[0]
    )  # fmt: skip


FILES = (".json", ".csv", ".tsv")  # which may change between two tasks
Parts = tuple[dict[str, Worded], Space, tuple[int, int, int], int]  # splits, space, (S, V, G), longest
_movies: dict[str, Parts] = {}


def _movie_parts(corpus: corpora.Corpus, options: Paraphrased) -> Parts:
    """Models rephrase the test split alone, for they are slow."""
    found = paraphrases.load_paraphrases(options.paraphrases)
    splits = ("test",) if found.slow else ("train", "test")
    clean = [t for s in splits for t in corpus.texts[s]]
    known = frozenset(w for t in clean for w in t)
    texts = paraphrases.gather(clean, found, options.wordings, partial(_tidy, known=known), MR_SENTENCES)
    shape, longest = measure(texts)
    space = _space(corpus, texts, options, mine=False)
    parts, start = {}, 0
    for split in splits:
        labels = corpus.labels[split]
        parts[split] = encode(texts[start : start + len(labels)], labels, space.lexicon, shape)
        start += len(labels)
    return parts, space, shape, longest


@takes(Paraphrased)
def paraphrase(spec: Spec, options: Paraphrased) -> Task:
    """The caller's victim and (text, label) pairs; paraphrases by rules, a table, the grammar, or a model by name."""
    given = lexicons.own_samples(samples.samples_of(spec))
    source = paraphrases.load_paraphrases(options.paraphrases)
    victim, classes = own.own_victim(spec, given.rows, own.first_text(given.texts[0], given.gaps[0]))
    corpus = labelled(spec, given, victim, classes)
    victim = fit_gaps(victim, corpus.gap_rows())
    made = {s: corpus.texts[s] for s in (("train", "test") if spec.train is not None else ("test",))}
    texts = {s: paraphrases.gather(part, source, options.wordings) for s, part in made.items()}
    every = [t for part in texts.values() for t in part]
    shape, longest = measure(every)
    space = _space(corpus, every, options, mine=True)
    parts = {s: _gapped(encode(part, corpus.labels[s], space.lexicon, shape), part, corpus, s, shape)
             for s, part in texts.items()}  # fmt: skip
    sizes = {s: len(corpus.texts[s]) for s in parts}
    goal = answers.goal_of(victim, classes, spec.threat.goal, own.named_classes(victim, classes))
    task = make_joint(
        spec, options, victim, goal, sizes, parts.__getitem__, space.lexicon, space.table(), longest, shape[0]
    )  # fmt: skip
    return split_of_own(spec, task)


def _gapped(
    made: Worded, texts: Sequence[Reworded], corpus: corpora.Corpus, split: str, shape: tuple[int, int, int]
) -> Worded:
    """The same with what stands between the words of the texts."""
    sentences, _, width = shape
    assert corpus.gaps is not None
    gaps = corpus.gaps[split]
    spacing = Spacing(gaps)
    numbers = spacing.rows(gaps, max(map(len, gaps)) - 1)
    out = torch.zeros(len(texts), sentences * width + 1, dtype=torch.int64)
    for i, text in enumerate(texts):
        at = 0
        for s, (said, _) in enumerate(text):
            out[i, s * width : s * width + len(said)] = numbers[i, at : at + len(said)]
            at += len(said)
    out[:, 0], out[:, -1] = numbers[:, 0], numbers[:, -1]
    return replace(made, gaps=out, spaces=spacing.texts)


# -- reports -------------------------------------------------------------------------------------------------
def _changes(batch: JointBatch, row: int, form: Tensor) -> list[tuple[str, bool, list[tuple[str, str | None]]]]:
    """Per sentence: (clean text, whether it has another wording, (word, its substitute or None) of its wording)."""
    text, edits = batch.lexicon.vocabulary.text, {s: c for s, c in form.tolist() if s >= 0}
    now = batch.worded(form.unsqueeze(0))[0].tolist()
    out = []
    for s, version in enumerate(now):
        clean = batch.wordings[row, s, 0].tolist()
        ids = batch.wordings[row, s, version].tolist() if version < batch.versions else []
        first = batch.sentences + (s * batch.versions + version) * batch.width
        pairs = [
            (text([w]), batch.payload(row, first + g, edits[first + g]) if batch.words and first + g in edits else None)
            for g, w in enumerate(ids) if w >= 0
        ]  # fmt: skip
        if any(w >= 0 for w in clean):
            out.append((text(clean), version > 0, pairs))
    return out


def line_joint(batch: JointBatch, row: int, form: Tensor, task: Any = None) -> str:
    """One line of plain text: `[old sentence -> new film(->movie)]`, words swapped in place as `film(->movie)`."""
    parts = []
    for clean, changed, pairs in _changes(batch, row, form):
        new = " ".join(w if swap is None else f"{w}(->{swap})" for w, swap in pairs)
        parts.append(f"[{clean} -> {new}]" if changed else new)
    return " ".join(parts)


def draw_joint(batch: JointBatch, row: int, form: Tensor) -> Any:
    """A frame of the text: a changed sentence struck through, then the new one with its swapped words marked."""
    sites: list[tuple[str, str | None]] = []
    for clean, changed, pairs in _changes(batch, row, form):
        sites += [(clean, "")] * changed + list(pairs)
    return show.marked(sites)


def show_joint(batch: JointBatch, row: int, form: Tensor, before: Tensor, after: Tensor, task: Any = None) -> str:
    """As `show.show`: old sentences struck through, new ones below with their swapped words marked."""
    body = ""
    for clean, changed, pairs in _changes(batch, row, form):
        new = " ".join(w if swap is None else swap for w, swap in pairs if swap != "")
        marked = f'<p style="{show._STYLE}">{" ".join(show._word(*pair) for pair in pairs)}</p>'
        body += show._sentence(clean, new) if changed else marked
        body += marked if changed and any(swap is not None for _, swap in pairs) else ""
    return f'<div class="text-edit">{body or escape("(an empty text)")}{show._answers(before, after, task)}</div>'
