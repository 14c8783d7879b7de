"""Certified word substitution by interval bounds (Jia et al. 2019), over the task's own table of substitutes.

Imports the domain of texts, whose victims it bounds: those that read embedded words.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.certified.interval_bounds import robust_loss
from advgym.agents.defenses.certifying import trained
from advgym.agents.defenses.intervals import Interval, bounded, certain
from advgym.core.batch import Batch
from advgym.core.kinds.certificates import Certificate, check_plain
from advgym.core.task import Task
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.models.classifiers import WordModel
from advgym.envs.text.perturb.words import TextBatch
from advgym.lib.settings import COUNT, NATURAL, POSITIVE, SHARE


class WordBounded(nn.Module):
    """A word model that answers as before, and bounds its answers over all texts that swaps reach."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim = victim
        self.inner = victim.module

    def forward(self, x: TextInput | list[str]) -> Tensor:
        return self.victim(x)

    @torch.no_grad()
    def certificate(self, batch: Batch, *, seed: int = 0) -> Certificate:
        """Certified where the worst margin is above 0 with any number of words swapped: radius inf, else 0."""
        check_plain(batch, "word-bounds")
        check_table(batch)
        assert isinstance(batch, TextBatch) and isinstance(self.inner, WordModel)
        label = self(batch.inputs(batch.null())).argmax(1)
        fine = certain(read(self.inner, batch, torch.float64), label)
        return Certificate(label, torch.where(fine, torch.inf, 0.0).double(), "edits")

    @torch.no_grad()
    def settled(self, x: TextInput, keys: Tensor) -> Tensor:
        """Its answer, which no draw moves."""
        return self(x).argmax(1)


def check_table(batch: Batch) -> None:
    """Refuse tables whose texts are not one word for one word, from a closed list."""
    if type(batch) is not TextBatch or batch.width != 1:
        raise AdvgymError("word bounds cannot be had here: they are of tables that swap one word for one word")
    if batch.slots:
        raise AdvgymError("word bounds cannot be had of an open table, whose words are not known: take slots=0")
    assert batch.grid is not None
    if bool((batch.grid & (batch.segments[..., 0] < 0)).any()):
        raise AdvgymError("word bounds cannot be had of a table that deletes words")


def boxes(model: WordModel, batch: TextBatch, part: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """(lowest, highest embedding at each position (n, L, D), mask (n, L)) over the word and its substitutes.

    Args:
        part: of the way from the clean text to the whole box, in [0, 1].
    """
    assert batch.grid is not None
    text = batch.inputs(batch.null())
    weight = model.embedding.weight
    remap = model.remap(text.vocabulary, weight.device)
    order, mask = text.packing()
    clean = weight[remap[text.ids]]
    low = high = clean
    for c in range(batch.segments.shape[2]):  # a choice at a time: the table is wide, words are few
        there = batch.grid[:, :, c]
        other = torch.where(
            there.unsqueeze(2), weight[remap[torch.where(there, batch.segments[:, :, c, 0], -1)]], clean
        )
        low, high = torch.minimum(low, other), torch.maximum(high, other)
    low, high = clean + part * (low - clean), clean + part * (high - clean)
    if order is None:
        return low[:, : mask.shape[1]], high[:, : mask.shape[1]], mask
    at = order.unsqueeze(2).expand(-1, -1, low.shape[2])
    return low.gather(1, at), high.gather(1, at), mask


def read(model: WordModel, batch: TextBatch, dtype: torch.dtype, part: float = 1.0) -> Interval:
    """Bounds on the scores of every text that the table reaches."""
    low, high, mask = boxes(model, batch, part)
    return bounded(lambda x: model.read(x, mask), Interval(low.to(dtype), high.to(dtype)))


@register_defense(
    "word-bounds", domains=("text",), kinds=("edits",),
    allowed={"kappa": SHARE, "epochs": NATURAL, "samples": COUNT, "batch": COUNT, "lr": POSITIVE},
)  # fmt: skip
def defend(
    victim: Victim, task: Task, *, epochs: int = 0, kappa: float = 0.8, samples: int = 20000, batch: int = 32,
    lr: float = 1e-3, seed: int = 0,
) -> Victim:  # fmt: skip
    """A bag or CNN of words with bounds on its answers under swaps; `advgym certify` prints what they certify.

    The bounds are over all words at once, more than the task's limit of edits allows. With `epochs` a copy goes on
    learning on its own worst margins over boxes that grow to the whole within half of the training.
    """
    model = victim.module
    if not isinstance(model, WordModel):
        what = "no module" if model is None else type(model).__name__
        raise AdvgymError(
            f"word bounds cannot be had of {victim.name!r} ({what}): they are of models of embedded words"
        )
    found = task.samples(next(s for s, size in task.sizes.items() if size), [0])
    check_table(found)
    assert isinstance(found, TextBatch)
    with torch.no_grad():
        read(model, found, torch.float64)
    if epochs:

        def loss(module: nn.Module, batch: Batch, share: float, step: int) -> Tensor:
            assert isinstance(module, WordModel) and isinstance(batch, TextBatch)
            now = min(1.0, 2 * share)
            scores = read(module, batch, torch.float32, now)
            return robust_loss(scores, module(batch.inputs(batch.null())), batch.labels, kappa * now)

        victim = trained(
            victim, task, "word-bounds", loss, samples=samples, epochs=epochs, batch=batch, lr=lr, seed=seed,
            kappa=kappa,
        )  # fmt: skip
    return victim.like(WordBounded(victim), name=f"{victim.name}+word-bounds")
