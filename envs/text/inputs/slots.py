"""What a text victim is given: word ids in slots, as strings, as packed tokens, or as embeddings with a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from advgym.core import rng
from advgym.envs.text.inputs.spacing import Gaps, joined
from advgym.envs.text.inputs.vocabulary import Vocabulary, pad_rows
from advgym.errors import AdvgymError


class Tap:
    """Where the gradient of every slot's embedding is read, for rankings over a whole vocabulary.

    A victim that embeds brings its table of words; the tap adds a leaf of zeros (n, W, D) to what it embeds.

    Attributes:
        leaves: the leaves, the first of which belongs to no victim.
        embedded: for the others: (rows of the texts asked about, word -> word or None, table, remap).
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.leaves: list[Tensor] = [torch.zeros(0, requires_grad=True)]
        self.embedded: list[tuple[Tensor | None, Tensor | None, Tensor, Tensor]] = []

    def add(self, own: Tensor, at: Tensor | None, words: Tensor | None, table: Tensor, remap: Tensor) -> Tensor:
        """`own` (m, W, D) with a leaf of its own on top; `at` int64 (m,): which text each row is of."""
        leaf = torch.zeros_like(own, requires_grad=True)
        self.leaves.append(leaf)
        self.embedded.append((at, words, table.detach(), remap))
        return own + leaf

    def gains(self, grads: Sequence[Tensor | None], words: Tensor) -> Tensor:
        """<g, E[v]> at every slot: float32 (n, W, v) for words int64 (v,), or (n, W) for one word each, int64 (n, W).

        Empty slots (-1) have the gain of an empty embedding.
        """
        each = words.dim() == 2
        device = words.device
        out: Tensor | None = None
        for (at, merge, table, remap), g in zip(self.embedded, grads[1:], strict=True):
            if g is None:
                continue
            ids = words if merge is None else torch.cat([merge, merge.new_tensor([-1])])[words]
            vectors = table[remap[ids]].to(g.dtype)
            if at is not None:
                g = torch.zeros(self.rows, *g.shape[1:], dtype=g.dtype, device=g.device).index_add(0, at, g)
            gain = (g * vectors).sum(2) if each else g @ vectors.T
            out = gain if out is None else out + gain
        return torch.zeros(self.rows, 0, device=device) if out is None else out


class TextInput:
    """n texts as word ids in W slots of the task; an empty slot (-1) is no word and leaves no space.

    White-box attacks mix words in embedding space: slot w then holds
    `E[ids[w]] + sum_c weight[w, c] * (E[swap[w, c]] - E[ids[w]])`, whatever embedding E the victim has. A slot is
    present while a present word has a part in it, so weights of 0 and 1 are exactly the plain texts.

    Args:
        ids: int64 (n, W).
        vocabulary: what the ids index.
        swap: int64 (n, W, C) or None: the words that are mixed in.
        weight: float (n, W, C): their parts.

        gaps: int64 (n, W + 1), what stands before each slot's word and after the text, and the strings that these
            index; None: one blank between words (`spacing`).

    With a `tap`, a victim that embeds leaves there what a ranking over all words needs.
    """

    def __init__(
        self, ids: Tensor, vocabulary: Vocabulary, swap: Tensor | None = None, weight: Tensor | None = None,
        gaps: Gaps | None = None,
    ) -> None:  # fmt: skip
        self.ids, self.vocabulary, self.swap, self.weight, self.gaps = ids, vocabulary, swap, weight, gaps
        self.tap: Tap | None = None
        self._at: Tensor | None = None  # which text of the tap each row is of, and what its words became
        self._merged: Tensor | None = None
        self._strings: list[str] | None = None

    def _like(self, other: TextInput, at: Tensor | None = None, merged: Tensor | None = None) -> TextInput:
        """The same tap as `other`'s, of its rows `at`, its words replaced by `merged`."""
        self.tap, self._at, self._merged, self.gaps = other.tap, other._at, other._merged, other.gaps
        if at is not None:
            self._at = at if other._at is None else other._at[at]
            self.gaps = None if other.gaps is None else (other.gaps[0][at], other.gaps[1])
        if merged is not None:
            self._merged = merged if other._merged is None else merged[other._merged]
        return self

    def public(self) -> dict[str, Any]:
        """The arguments that make this input again, in another process."""
        return {"ids": self.ids, "vocabulary": self.vocabulary, "swap": self.swap, "weight": self.weight,
                "gaps": self.gaps}  # fmt: skip

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        """Where the ids are."""
        return self.ids.device

    def take(self, index: Tensor) -> TextInput:
        """The rows at `index`."""
        swap, weight = self.swap, self.weight
        if swap is None or weight is None:
            return TextInput(self.ids[index], self.vocabulary)._like(self, at=index)
        return TextInput(self.ids[index], self.vocabulary, swap[index], weight[index])._like(self, at=index)

    def to(self, device: torch.device) -> TextInput:
        """The same on another device."""
        if device == self.device:
            return self
        swap, weight = (None if t is None else t.to(device) for t in (self.swap, self.weight))
        moved = TextInput(self.ids.to(device), self.vocabulary, swap, weight)._like(self)
        moved.gaps = None if self.gaps is None else (self.gaps[0].to(device), self.gaps[1])
        return moved

    def replace(self, table: Tensor) -> TextInput:
        """Every word w becomes table[w], int64 (V,) (a defense that merges synonyms); empty slots stay."""
        extended = torch.cat([table, table.new_tensor([-1])])  # index -1 reads the last entry
        swap = None if self.swap is None else extended[self.swap]
        return TextInput(extended[self.ids], self.vocabulary, swap, self.weight)._like(self, merged=table)

    def strings(self) -> list[str]:
        """The texts: words with what stands between them, byte for byte where none is edited."""
        if self.weight is not None:
            raise AdvgymError(
                "this victim reads strings, and a relaxed text has none: gradients and `rank` need a victim that "
                "embeds words by TextInput.embed"
            )
        if self.tap is not None:
            raise AdvgymError("this victim reads strings, which have no gradient: use a score-based agent")
        if self._strings is None:
            words, rows = self.vocabulary.words, self.ids.tolist()
            gaps, spaces = ([None] * len(rows), ()) if self.gaps is None else (self.gaps[0].tolist(), self.gaps[1])
            self._strings = [joined(words, row, gap, spaces) for row, gap in zip(rows, gaps, strict=True)]
        return self._strings

    def contents(self) -> list[bytes] | None:
        """What each row is, for whoever keeps answers; None for mixed words, and where a gradient is read."""
        if self.weight is not None or self.tap is not None:
            return None
        names = self.vocabulary.words
        rows = ["\x1f".join(names[i] for i in row if i >= 0) for row in self.ids.tolist()]
        pairs = zip(rows, self.strings(), strict=True)
        return [f"{words}\x1e{text}".encode("utf-8", "surrogatepass") for words, text in pairs]

    def present(self) -> Tensor:
        """Bool (n, W): slots that hold a word."""
        here = self.ids >= 0
        if self.weight is None or self.swap is None:
            return here
        weight = self.weight.detach()
        return (here & (weight.sum(2) < 1)) | ((self.swap >= 0) & (weight > 0)).any(2)

    def packing(self) -> tuple[Tensor | None, Tensor]:
        """(slot of each position, int64 (n, L), or None when words already stand left; bool (n, L) mask)."""
        present = self.present()
        length = int(present.sum(1).max()) if len(present) else 0
        if not bool((present[:, 1:] & ~present[:, :-1]).any()):
            return None, present[:, :length]
        order = (~present).to(torch.int8).argsort(dim=1, stable=True)[:, :length]
        return order, present.gather(1, order)

    def tokens(self, remap: Tensor) -> tuple[Tensor, Tensor]:
        """Ids of the victim packed left, int64 (n, L), and their mask.

        Args:
            remap: int64 (V + 1,), the victim's id of each word; the last entry is its padding.
        """
        order, mask = self.packing()
        ids = self.ids[:, : mask.shape[1]] if order is None else self.ids.gather(1, order)
        # A slot that is to be skipped reads -1, the last entry.
        return remap[torch.where(mask, ids, -1)], mask

    def embed(self, table: Tensor, remap: Tensor) -> tuple[Tensor, Tensor]:
        """Word embeddings packed left, float (n, L, D), and their mask; the only door for gradients.

        Args:
            table: float (victim's vocabulary, D); the row of its padding is zero.
            remap: as in `tokens`.
        """
        soft = self.weight is not None and self.swap is not None
        if not soft and self.tap is None:
            ids, mask = self.tokens(remap)
            return table[ids], mask
        order, mask = self.packing()
        both = table[remap[self.ids]]
        if self.weight is not None and self.swap is not None:
            mixed = torch.einsum("nwc,nwcd->nwd", self.weight, table[remap[self.swap]])
            both = both * (1 - self.weight.sum(2, keepdim=True)) + mixed
        if self.tap is not None:
            both = self.tap.add(both, self._at, self._merged, table, remap)
        if order is None:
            return both[:, : mask.shape[1]], mask
        return both.gather(1, order.unsqueeze(2).expand(-1, -1, both.shape[2])), mask


def remap_to(vocabulary: Vocabulary, own: Vocabulary, *, shift: int, unknown: int, padding: int) -> Tensor:
    """int64 (V + 1,): a victim's id (its word's index + shift) of each word of a task, then its padding."""
    ids = [own.index[word] + shift if word in own.index else unknown for word in vocabulary.words]
    return torch.tensor([*ids, padding], dtype=torch.int64)


def as_text(x: Any, vocabulary: Vocabulary) -> TextInput:
    """A TextInput as it is; a list of strings as one, words that the vocabulary lacks becoming unknown words."""
    if isinstance(x, TextInput):
        return x
    if not isinstance(x, Sequence) or isinstance(x, str) or not all(isinstance(t, str) for t in x):
        raise AdvgymError(f"a text victim takes TextInput or a list of strings, not {type(x).__name__}")
    texts = [t.split() for t in x]
    fresh = dict.fromkeys(word for text in texts for word in text)
    seen = Vocabulary(fresh)
    return TextInput(pad_rows([seen.encode(t) for t in texts], max(map(len, texts), default=0)), seen)


def make_randomise(near: Tensor) -> Callable[[TextInput, float, Tensor], TextInput]:
    """`Task.randomise`: each word becomes, with probability `rate`, a random synonym of itself; keyed, blind to clean.

    Args:
        near: int64 (V, N), the synonyms of each word, padded with -1 at the end.
    """
    many = torch.cat([(near >= 0).sum(1), torch.zeros(1, dtype=torch.int64)])

    def vary(ids: Tensor, u: Tensor, change: Tensor) -> Tensor:
        count = many.to(ids.device)[ids]
        nth = (u * count).long().clamp_max((count - 1).clamp_min(0))
        other = near.to(ids.device)[ids.clamp_min(0), nth]
        return torch.where(change & (count > 0), other, ids)

    def randomise(x: TextInput, rate: float, keys: Tensor) -> TextInput:
        u = rng.uniform(0, keys.to(x.device), (x.ids.shape[1], 2), 61)
        change, nth = u[..., 0] < rate, u[..., 1]
        # The same draw moves the words mixed in, so relaxed texts stay those of the plain ones at 0 and 1.
        swap = None if x.swap is None else vary(x.swap, nth.unsqueeze(2), change.unsqueeze(2))
        return TextInput(vary(x.ids, nth, change), x.vocabulary, swap, x.weight)._like(x)

    return randomise
