"""Universal triggers: a few words that, put before any text of a class, change what the victim says (Wallace 2019).

A sample is a bundle of M texts of one class; a site is one of K places before all of them, a choice a word. Its
objective is the mean over the texts, and asking about one trigger costs M queries.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.goals import BundleGoal, ClassGoal
from advgym.core.task import Spec, Task
from advgym.core.victim import Victim
from advgym.envs.text.candidates import lexicons
from advgym.envs.text.data import corpora, grammar, samples
from advgym.envs.text.goals import answers
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.spacing import BLANK, Gaps, Spacing
from advgym.envs.text.inputs.vocabulary import Lexicon, pad_rows
from advgym.envs.text.measures import columns
from advgym.envs.text.perturb.words import TextBatch
from advgym.envs.text.tasks import given
from advgym.envs.text.tasks.options import Trigger
from advgym.envs.text.victims import own
from advgym.envs.text.victims.hub import fit_gaps
from advgym.errors import AdvgymError
from advgym.lib.options import takes


class TriggerBatch(TextBatch):
    """B bundles of M texts behind K empty places.

    Args:
        ids, labels: int64 (B,) and (B, M).
        texts: int64 (B, M, W), word ids, -1 in empty slots.
        words: int64 (C,), what a place may hold.
        places: K.
        lexicon: of the task.
        between: int64 (B, M, W + 1), the gaps of the texts, and what they index (`spacing`); None: one blank.
    """

    shown = "texts members between filler"

    def __init__(
        self, ids: Tensor, labels: Tensor, texts: Tensor, words: Tensor, places: int, lexicon: Lexicon,
        between: Gaps | None = None,
    ) -> None:  # fmt: skip
        batch = len(ids)
        clean = ids.new_full((batch, places, 1), -1)
        segments = words.view(1, 1, -1, 1).expand(batch, places, -1, 1)
        limit = ids.new_full((batch,), places)
        super().__init__(ids, labels, clean, segments, limit=limit, rows_max=places, lexicon=lexicon)
        self.texts, self.members, self.between = texts, texts.shape[1], between
        self.filler = int(words[0])  # the commonest word stands in an empty place while gradients are taken
        # A place is empty when clean: neither a deletion nor an unknown word asks anything of it.
        self.probe = self.unknown = None

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> TextInput:
        """The trigger before every member: n * M texts."""
        return self._before_members(super().inputs(form, rows), rows)

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> TextInput:
        return self._before_members(super().relaxed(form, weights, rows), rows)

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[TextInput, list[Tensor]]:
        """As for word swaps, with the commonest word in the empty places: an absent word has no gradient."""
        plain = super().inputs(form, rows)
        weight = torch.zeros(len(form), self.sites, self.choices, device=form.device, requires_grad=True)
        swap = pick(self.segments, rows).squeeze(3)
        filled = torch.where(plain.ids < 0, self.filler, plain.ids)
        return self._before_members(TextInput(filled, plain.vocabulary, swap, weight), rows), [weight]

    def _before_members(self, x: TextInput, rows: Tensor | None) -> TextInput:
        texts = pick(self.texts, rows)
        n, m, w = texts.shape

        def joined(front: Tensor, back: Tensor) -> Tensor:
            return torch.cat([front.unsqueeze(1).expand(-1, m, *front.shape[1:]), back], 2).flatten(0, 1)

        ids, gaps = joined(x.ids, texts), None
        if self.between is not None:
            # What leads a text leads the trigger, which is a blank apart from it.
            own, spaces = pick(self.between[0], rows), tuple(self.between[1])
            front = own.new_full((n, m, self.sites + 1), spaces.index(BLANK))
            front[..., 0] = own[..., 0]
            gaps = torch.cat([front, own[..., 1:]], 2).flatten(0, 1), spaces
        if x.swap is None or x.weight is None:
            return TextInput(ids, x.vocabulary, gaps=gaps)
        width = x.swap.shape[2]
        swap = joined(x.swap, x.swap.new_full((n, m, w, width), -1))
        return TextInput(ids, x.vocabulary, swap, joined(x.weight, x.weight.new_zeros(n, m, w, width)), gaps)

    def view(self) -> dict[str, Tensor]:
        """`words` int64 (B, M, W): the members."""
        return {"words": self.texts}


def trigger_task(spec: Spec, options: Trigger, corpus: corpora.Corpus, lexicon: Lexicon) -> Task:
    """The task over a corpus: bundle i of a split holds the next M of its texts of one class, classes taking turns."""
    common = lexicon.frequency.topk(min(options.choices, len(lexicon.vocabulary))).indices
    common = common[lexicon.frequency[common] > 0]
    victim = own.task_victim(spec, len(corpus.classes))
    return _task(spec, options, corpus, lexicon, victim, list(corpus.classes), common)


def _task(
    spec: Spec, options: Trigger, corpus: corpora.Corpus, lexicon: Lexicon, victim: Victim, names: list[str],
    words: Tensor,
) -> Task:  # fmt: skip
    places, members = options.words, options.texts
    width = corpus.longest
    bundles = {split: _bundles(corpus.labels[split], members, len(names)) for split in corpus.texts}
    for split, found in bundles.items():
        if not found:
            raise AdvgymError(
                f"no class of {corpus.name} has {members} texts in the split {split!r}: ask for fewer, as in "
                f"texts={max(1, members // 2)}"
            )
    gaps: dict[str, Tensor] = {}
    spaces: tuple[str, ...] = ()
    if corpus.gaps is not None:
        spacing = Spacing(corpus.gap_rows())
        spaces, gaps = spacing.texts, {s: spacing.rows(part, width) for s, part in corpus.gaps.items()}

    def deal(split: str, ids: list[int], device: Any = "cpu") -> TriggerBatch:
        chosen = [j for i in ids for j in bundles[split][i]]
        texts = [lexicon.vocabulary.encode(corpus.texts[split][j]) for j in chosen]
        labels = torch.tensor([corpus.labels[split][j] for j in chosen]).view(len(ids), members)
        rows = pad_rows(texts, width).view(len(ids), members, width)
        tensors = (torch.tensor(ids), labels, rows, words)
        index, labels, rows, put = (t.to(device) for t in tensors)
        between = (gaps[split][chosen].view(len(ids), members, -1).to(device), spaces) if gaps else None
        return TriggerBatch(index, labels, rows, put, places, lexicon, between)

    goal = BundleGoal(ClassGoal(len(names), spec.threat.goal, names), members)
    vocabulary = lexicon.vocabulary
    return Task(
        spec.name, victim, goal, spec.threat,
        sizes={split: len(found) for split, found in bundles.items()}, deal=deal,
        context={"vocabulary": vocabulary.words, "strings": vocabulary.strings, "frequency": lexicon.frequency},
        line=_line, columns=columns.COLUMNS,
    )  # fmt: skip


def _bundles(labels: list[int], members: int, classes: int) -> list[list[int]]:
    """Indices of M texts of one class each, the classes taking turns; what is left over belongs to none."""
    of = [[i for i, y in enumerate(labels) if y == c] for c in range(classes)]
    of = [part for part in of if part]  # a class that the texts lack makes no bundle
    most = min((len(part) for part in of), default=0) // members
    return [of[c][k * members : (k + 1) * members] for k in range(most) for c in range(len(of))]


def _line(batch: TriggerBatch, row: int, form: Tensor, before: Any = None, after: Any = None) -> str:
    """The trigger, and how many of the members it turns."""
    words = TextBatch.inputs(batch, form.unsqueeze(0), torch.tensor([row], device=form.device)).strings()[0]
    shown = f"{words!r} before {batch.members} texts"
    if before is None or after is None:
        return shown
    turned = sum(a != b for a, b in zip(torch.as_tensor(before).tolist(), torch.as_tensor(after).tolist(), strict=True))
    return f"{shown}: {turned} answers change"


@cache
def _synth() -> tuple[corpora.Corpus, Lexicon]:
    corpus = corpora.reviews()
    return corpus, lexicons.lexicon_of(corpus, grammar.synonyms(), 1)


@takes(Trigger)
def synth_trigger(spec: Spec, options: Trigger) -> Task:
    """Triggers before generated short reviews."""
    return trigger_task(spec, options, *_synth())


@takes(Trigger)
def mr_trigger(spec: Spec, options: Trigger) -> Task:
    """Triggers before Movie Reviews (Pang & Lee, 2005)."""
    corpus = corpora.movie_reviews(spec.load_dataset())
    return trigger_task(spec, options, corpus, lexicons.lexicon_of(corpus, {}, 1, tuple(corpora.STOPWORDS)))


@takes(Trigger)
def own_trigger(spec: Spec, options: Trigger) -> Task:
    """Triggers before the caller's own texts, (text, label) pairs; `candidates` are the words that a place may hold.

    "common" takes the commonest words of the training split (`train=`), without one those of the texts themselves; a
    list, or the path of a file with one word a line, is taken as it is.
    """
    found = lexicons.own_samples(samples.samples_of(spec), split=options.splitter)
    if any(isinstance(t, tuple) for t in found.rows.texts):
        raise AdvgymError("text/trigger takes single texts, not pairs; text/insert puts words into one of a pair")
    victim, classes = own.own_victim(spec, found.rows, own.first_text(found.texts[0], found.gaps[0]))
    answers.only_classes(victim, spec.name)
    corpus = given.labelled(spec, found, victim, classes, split=options.splitter)
    victim = fit_gaps(victim, corpus.gap_rows())
    words = _candidates(options.candidates, corpus, options.choices)
    lexicon = lexicons.lexicon_of(corpus, {}, 1, more=words)
    names = own.named_classes(victim, classes) or [str(c) for c in range(classes)]
    task = _task(spec, options, corpus, lexicon, victim, names, torch.tensor(lexicon.vocabulary.encode(words)))
    return given.split_of_own(spec, task)


def _candidates(value: Any, corpus: corpora.Corpus, most: int) -> list[str]:
    if value == "common":
        counts = Counter(w for text in corpus.texts["train"] for w in text if any(map(str.isalnum, w)))
        found = sorted(counts, key=lambda w: (-counts[w], w))[:most]
    elif isinstance(value, str):
        try:
            found = list(dict.fromkeys(Path(value).read_text(encoding="utf-8").split()))
        except (OSError, UnicodeDecodeError) as error:
            raise AdvgymError(
                f"candidates={value!r}: {error}; want 'common', a list of words, or a file with one a line"
            ) from None
    else:
        fine = isinstance(value, list | tuple) and all(isinstance(w, str) and len(w.split()) == 1 for w in value)
        if not fine:
            raise AdvgymError(f"candidates of a trigger is 'common', a list of words, or a file of them, not {value!r}")
        found = list(dict.fromkeys(value))
    if not found:
        raise AdvgymError("a trigger needs at least one word: name some, candidates=['really', 'not']")
    return found
