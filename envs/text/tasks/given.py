"""Whose texts a task attacks, and what judges them: Movie Reviews, the embedded reviews, or the caller's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.goals import Goal
from advgym.core.task import ATTACKED, Spec, Task, untrained
from advgym.core.victim import Victim
from advgym.envs.text import show
from advgym.envs.text.candidates import lexicons
from advgym.envs.text.data import corpora, grammar, labels, samples
from advgym.envs.text.goals import answers
from advgym.envs.text.inputs.slots import make_randomise
from advgym.envs.text.inputs.spacing import BLANK, PAIR, Spacing
from advgym.envs.text.inputs.vocabulary import Vocabulary, pad_rows
from advgym.envs.text.measures import columns
from advgym.envs.text.perturb.space import Space
from advgym.envs.text.tasks.options import Own
from advgym.envs.text.victims import own
from advgym.envs.text.victims.hub import fit_gaps
from advgym.errors import AdvgymError, unknown
from advgym.lib.drawn import SPLIT, Drawn, read_drawn

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Given:
    """Texts and a victim.

    Attributes:
        corpus: splits of word lists and labels.
        victim: that takes TextInput.
        classes: of the victim; names: of the classes, or None.
        width: words of the longest text, at least 1.
        mine: the caller's texts, whose words stand in punctuation; others come apart.
        drawn: texts and labels that a seed draws, beside the corpus.
        between: what stands before a word that is put in.
    """

    corpus: corpora.Corpus
    victim: Victim
    classes: int
    names: list[str] | None
    width: int
    mine: bool
    drawn: tuple[list[list[str]], list[int]] | None = None
    between: str = BLANK

    @property
    def texts(self) -> dict[str, list[list[str]]]:
        """Every split, the drawn one too."""
        return {**self.corpus.texts, **({} if self.drawn is None else {SPLIT: self.drawn[0]})}

    @property
    def labels(self) -> dict[str, list[int]]:
        """As `texts`."""
        return {**self.corpus.labels, **({} if self.drawn is None else {SPLIT: self.drawn[1]})}

    @property
    def spacing(self) -> Spacing | None:
        """What stands between the words of the caller's texts; None where that is one blank."""
        gaps = self.corpus.gaps
        return None if gaps is None else Spacing(self.corpus.gap_rows(), between=self.between)

    @property
    def paired(self) -> bool:
        """Whether the texts are one of two, the other a single word."""
        return self.mine and any(PAIR in word for word in self.corpus.texts["test"][0])


def check_name(spec: Spec, allowed: str) -> Drawn | None:
    """Refuse any dataset but the task's own; that one may be drawn by a seed (`NAME#SEED:COUNT`)."""
    found = spec.load_dataset()
    drawn = read_drawn(found)
    if (drawn.name if drawn else found) != allowed:
        raise unknown("dataset", found, [allowed], f"{spec.name} has the embedded one alone; text/wordswap takes "
                           "your own samples.")  # fmt: skip
    if spec.samples is not None:
        raise AdvgymError(f"{spec.name} generates its samples; text/wordswap takes your own")
    return drawn


def read_given(spec: Spec, options: Own) -> Given:
    """The texts of a task by its row's dataset; a row without one takes the caller's samples or dataset."""
    row = str(spec.row.get("dataset", ""))
    if row.startswith("synth-reviews"):
        drawn = check_name(spec, "synth-reviews")
        more = None
        if drawn is not None:
            more = corpora.drawn_reviews(drawn.seed, drawn.count), corpora.drawn_labels(drawn.seed, drawn.count)
        return Given(corpora.reviews(), own.task_victim(spec, 2), 2, ["blame", "praise"], grammar.SHORT, False, more)
    if row:
        if spec.samples is not None:
            raise AdvgymError(f"{spec.name} reads its own samples; {spec.name.replace('mr-', '')} takes yours")
        corpus = corpora.movie_reviews(spec.load_dataset())
        return Given(corpus, own.task_victim(spec, 2), 2, ["negative", "positive"], max(corpus.longest, 1), False)
    return _mine(spec, options)


def _mine(spec: Spec, options: Own) -> Given:
    attacked, split = options.attacked, options.splitter
    found = lexicons.own_samples(samples.samples_of(spec), attacked, split)
    victim, classes = own.own_victim(spec, found.rows, own.first_text(found.texts[0], found.gaps[0]))
    corpus = labelled(spec, found, victim, classes, attacked, split)
    victim = fit_gaps(victim, corpus.gap_rows())
    names = own.named_classes(victim, classes)
    # In a script without blanks a word that is put in brings none.
    solid = split != "blanks" and not any(" " in g for row in found.gaps for g in row)
    return Given(corpus, victim, classes, names, max(corpus.longest, 1), True, between="" if solid else BLANK)


def labelled(
    spec: Spec, found: lexicons.Own, victim: Victim, classes: int, attacked: int = 2, split: Any = "blanks"
) -> corpora.Corpus:
    """The corpus of the caller's samples and, with `train=`, of a training split, whose labels are the victim's."""
    corpus = found.corpus
    kind = answers.kind_of(victim)
    of: Any = partial(answers.meet if kind else labels.meet, victim=victim, classes=classes)
    if kind and spec.train is not None:
        raise AdvgymError(f"train= is for classes, and victim {victim.name!r} answers {answers.KINDS[kind]}")
    test = of(found.rows.labels, found.rows.where, names=found.rows.names)
    if spec.train is None:
        return replace(corpus, labels=dict.fromkeys(SPLITS, test))
    more = lexicons.own_samples(samples.training_rows(spec.train), attacked, split)
    train = of(more.rows.labels, more.rows.where, names=more.rows.names)
    assert corpus.gaps is not None
    return replace(
        corpus, texts={**corpus.texts, "train": more.texts}, gaps={**corpus.gaps, "train": more.gaps},
        labels={"train": train, "test": test}, classes=tuple(map(str, range(classes))), trained="train",
    )  # fmt: skip


# -- spaces --------------------------------------------------------------------------------------------------
_spaces: dict[str, Space] = {}
NEEDS = ("candidates", "choices", "stopwords", "antonyms", "pos", "edit_distance", "similarity", "similarity_min",
         "perplexity", "perplexity_max")  # fmt: skip


def needs(options: Own) -> dict[str, Any]:
    """What a space is made of."""
    return {key: getattr(options, key) for key in NEEDS}


def space_of(given: Given, options: Own, more: tuple[str, ...] = ()) -> Space:
    """The table of choices for these texts; kept for the process where corpus and options have names."""
    chosen = needs(options)

    def make() -> Space:
        return Space(given.corpus, chosen, options.choices, dress_up=given.mine, more=more)

    if given.mine or not all(_plain(value) for value in chosen.values()):
        return make()
    from advgym.lib.weights import data_dir

    name = repr((given.corpus.name, corpora.digest_of(given.corpus), sorted(chosen.items(), key=str), more, data_dir()))
    if name not in _spaces:
        if len(_spaces) >= 8:
            _spaces.clear()
        _spaces[name] = make()
    return _spaces[name]


def _plain(value: Any) -> bool:
    named = isinstance(value, str) and not value.endswith(".json")  # a file may change
    return named or isinstance(value, int | float) or (isinstance(value, list) and all(map(_plain, value)))


def _told(value: Any) -> Any:
    """An option as results hold it: objects by name, tables by their size."""
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [_told(v) for v in value]
    if isinstance(value, dict):
        return f"a table of {len(value)} words"
    return str(getattr(value, "name", None) or getattr(value, "__name__", type(value).__name__))


def encoded(given: Given, vocabulary: Vocabulary, splits: tuple[str, ...]) -> dict[str, tuple[Tensor, Tensor]]:
    """(word ids int64 (N, W), labels) of each split, and of what a seed drew."""
    out = {}
    for split in [*splits, *([SPLIT] if given.drawn is not None else [])]:
        ids = [vocabulary.encode(text) for text in given.texts[split]]
        out[split] = pad_rows(ids, given.width), torch.tensor(given.labels[split])
    return out


def spaces_of(given: Given, splits: tuple[str, ...]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Gaps int64 (N, W + 1) of each split, and what they index; none where words stand one blank apart."""
    spacing = given.spacing
    if spacing is None or given.corpus.gaps is None:
        return {}, ()
    return {split: spacing.rows(given.corpus.gaps[split], given.width) for split in splits}, spacing.texts


def make_task(
    spec: Spec, given: Given, space: Space, deal: Callable[[str, list[int], Any], Batch], goal: Goal | None = None
) -> Task:
    """The task over a space: what is public of it, and how it is shown."""
    lexicon = space.lexicon
    sizes = {split: len(given.texts[split]) for split in space.splits}
    if given.drawn is not None:
        sizes[SPLIT] = len(given.drawn[0])
    task = Task(
        spec.name, given.victim, goal or answers.goal_of(given.victim, given.classes, spec.threat.goal, given.names),
        replace(spec.threat, constraint={key: _told(value) for key, value in spec.threat.constraint.items()}),
        sizes=sizes, deal=deal,
        context={"vocabulary": lexicon.vocabulary.words, "strings": lexicon.vocabulary.strings,
                 "synonyms": lexicon.near, "frequency": lexicon.frequency},
        randomise=make_randomise(lexicon.near), show=show.show, line=show.line, draw=show.draw,
        columns=columns.COLUMNS if goal is None else None,  # what is left of a reduced text is meant to say nothing
        offers=space.offers | {"text"} | (set() if space.whole else {"words"}),
        tells=lambda split, ids: {"words": [len(given.texts[split][i]) for i in ids]},
    )  # fmt: skip
    return split_of_own(spec, task) if given.mine else task


def split_of_own(spec: Spec, task: Task) -> Task:
    """A task of the caller's texts: without `train=` it has no training split."""
    if spec.train is not None:
        return task
    return untrained(task) if spec.row.get("train") else untrained(task, ATTACKED)
