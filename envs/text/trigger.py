"""Universal triggers: a few words that, put before any text of a class, change what the victim says (Wallace 2019).

A sample is a bundle of M texts of one class; a site is one of K places before all of them, a choice a word. Its
objective is the mean over the texts, and asking about one trigger costs M queries.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from advgym.batch import pick
from advgym.envs.text import data, grammar, metrics, own, synonyms
from advgym.envs.text.inputs import TextInput
from advgym.envs.text.task import whole
from advgym.envs.text.vocabulary import Lexicon, pad_rows
from advgym.envs.text.words import TextBatch
from advgym.errors import AdvgymError
from advgym.goals import BundleGoal, ClassGoal
from advgym.task import Spec, Task


class TriggerBatch(TextBatch):
    """B bundles of M texts behind K empty places.

    Args:
        ids, labels: int64 (B,) and (B, M).
        texts: int64 (B, M, W), word ids, -1 in empty slots.
        words: int64 (C,), what a place may hold.
        places: K.
        lexicon: of the task.
    """

    def __init__(
        self, ids: Tensor, labels: Tensor, texts: Tensor, words: Tensor, places: int, lexicon: Lexicon
    ) -> None:
        batch = len(ids)
        clean = ids.new_full((batch, places, 1), -1)
        segments = words.view(1, 1, -1, 1).expand(batch, places, -1, 1)
        limit = ids.new_full((batch,), places)
        super().__init__(ids, labels, clean, segments, limit=limit, rows_max=places, lexicon=lexicon)
        self.texts, self.members = texts, texts.shape[1]
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

        ids = joined(x.ids, texts)
        if x.swap is None or x.weight is None:
            return TextInput(ids, x.vocabulary)
        width = x.swap.shape[2]
        swap = joined(x.swap, x.swap.new_full((n, m, w, width), -1))
        return TextInput(ids, x.vocabulary, swap, joined(x.weight, x.weight.new_zeros(n, m, w, width)))

    def view(self) -> dict[str, Tensor]:
        """`words` int64 (B, M, W): the members."""
        return {"words": self.texts}


def trigger_task(spec: Spec, corpus: data.Corpus, lexicon: Lexicon) -> Task:
    """The task over a corpus: bundle i of a split holds the next M of its texts of one class, classes taking turns.

    Options of the constraint: `words`, places of the trigger; `texts`, M; `choices`, the commonest words of the
    training split that a place may hold.
    """
    options = spec.threat.constraint
    places, members = whole(options, "words", 1), whole(options, "texts", 1)
    common = lexicon.frequency.topk(min(whole(options, "choices", 1), len(lexicon.vocabulary))).indices
    common = common[lexicon.frequency[common] > 0]
    width = corpus.longest
    bundles = {split: _bundles(corpus.labels[split], members, len(corpus.classes)) for split in corpus.texts}
    if not all(bundles.values()):
        raise AdvgymError(
            f"no class of {corpus.name} has {members} texts in one split: ask for fewer, as in texts={members // 2}"
        )

    def deal(split: str, ids: list[int], device: Any = "cpu") -> TriggerBatch:
        chosen = [bundles[split][i] for i in ids]
        texts = [lexicon.vocabulary.encode(corpus.texts[split][j]) for bundle in chosen for j in bundle]
        labels = torch.tensor([[corpus.labels[split][j] for j in bundle] for bundle in chosen])
        rows = pad_rows(texts, width).view(len(ids), members, width)
        tensors = (torch.tensor(ids), labels, rows, common)
        index, labels, rows, words = (t.to(device) for t in tensors)
        return TriggerBatch(index, labels, rows, words, places, lexicon)

    goal = BundleGoal(ClassGoal(len(corpus.classes), spec.threat.goal, list(corpus.classes)), members)
    vocabulary = lexicon.vocabulary
    return Task(
        spec.name, own.task_victim(spec, len(corpus.classes)), goal, spec.threat,
        sizes={split: len(found) for split, found in bundles.items()}, deal=deal,
        context={"vocabulary": vocabulary.words, "strings": vocabulary.strings, "frequency": lexicon.frequency},
        line=_line, columns=metrics.COLUMNS,
    )  # fmt: skip


def _bundles(labels: list[int], members: int, classes: int) -> list[list[int]]:
    """Indices of M texts of one class each, the classes taking turns; what is left over belongs to none."""
    of = [[i for i, y in enumerate(labels) if y == c] for c in range(classes)]
    most = min(len(part) for part in of) // members
    return [of[c][k * members : (k + 1) * members] for k in range(most) for c in range(classes)]


def _line(batch: TriggerBatch, row: int, form: Tensor, before: Any = None, after: Any = None) -> str:
    """The trigger, and how many of the members it turns."""
    words = TextBatch.inputs(batch, form.unsqueeze(0), torch.tensor([row], device=form.device)).strings()[0]
    shown = f"{words!r} before {batch.members} texts"
    if before is None or after is None:
        return shown
    turned = sum(a != b for a, b in zip(torch.as_tensor(before).tolist(), torch.as_tensor(after).tolist(), strict=True))
    return f"{shown}: {turned} answers change"


@cache
def _synth() -> tuple[data.Corpus, Lexicon]:
    corpus = data.reviews()
    return corpus, synonyms.lexicon_of(corpus, grammar.synonyms(), 1)


def synth_trigger(spec: Spec) -> Task:
    """Triggers before generated short reviews."""
    return trigger_task(spec, *_synth())


def mr_trigger(spec: Spec) -> Task:
    """Triggers before Movie Reviews (Pang & Lee, 2005)."""
    corpus = data.movie_reviews(spec.load_dataset())
    return trigger_task(spec, corpus, synonyms.lexicon_of(corpus, {}, 1, tuple(data.STOPWORDS)))
