"""Translators of a few million weights: words in, words out, greedy, differentiable in the source words."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.envs.text.inputs.vocabulary import Vocabulary
from advgym.envs.text.models.classifiers import mean_words
from advgym.envs.text.models.writers import SequenceModel

FAR = -1e4  # a score that softmax takes for none; -inf would break an empty source


class Translator(SequenceModel):
    """A `SequenceModel` that decodes step by step, and learns by a sampled softmax.

    Subclasses write `hidden(memory, mask, before) -> (n, T, width)`; the output layer is the tied word embedding `own`,
    which holds the tokens, the begin token and an unknown word (read in training, never written).
    """

    stepwise = True

    def __init__(self, vocabulary: Vocabulary, tokens: int, length: int, width: int, drop: float) -> None:
        super().__init__(vocabulary, tokens, length, width)
        self.own = nn.Embedding(tokens + 2, width)
        nn.init.normal_(self.own.weight, std=width**-0.5)
        self.bias = nn.Parameter(torch.zeros(tokens))
        self.drop = nn.Dropout(drop)

    def hidden(self, memory: Tensor, mask: Tensor, before: Tensor) -> Tensor:
        """What the output layer reads at each position."""
        raise NotImplementedError

    def write(self, hidden: Tensor) -> Tensor:
        """Logits of every token."""
        return F.linear(hidden, self.own.weight[: self.tokens], self.bias)

    def decode(self, memory: Tensor, mask: Tensor, before: Tensor) -> Tensor:
        return self.write(self.hidden(memory, mask, before))

    def sampled_loss(self, embedded: Tensor, mask: Tensor, before: Tensor, answer: Tensor, many: int) -> Tensor:
        """Mean cross-entropy over `many` drawn words and all that the batch holds (after Jean et al., 2015).

        The drawn words stand for all others: their weight makes the softmax's denominator unbiased.

        Args:
            before: int64 (n, T); answer: int64 (n, T), -100 where nothing is asked.
        """
        asked = answer >= 0
        hidden = self.hidden(self.encode(embedded, mask), mask, before)[asked]
        wanted = answer[asked]
        held = torch.zeros(self.tokens, dtype=torch.bool, device=wanted.device)
        held[wanted] = True
        rest = (~held).nonzero().squeeze(1)
        drawn = rest[torch.randperm(len(rest), device=rest.device)[:many]]
        index = torch.cat([held.nonzero().squeeze(1), drawn])
        place = index.new_zeros(self.tokens)
        place[index] = torch.arange(len(index), device=index.device)
        shift = torch.zeros(len(index), device=index.device)
        shift[len(index) - len(drawn) :] = math.log(len(rest) / max(len(drawn), 1)) if len(drawn) else 0.0
        logits = F.linear(hidden, self.own.weight[index], self.bias[index] + shift)
        return F.cross_entropy(logits, place[wanted])


def _readable(mask: Tensor) -> Tensor:
    """The words, and the first place in any case: an empty source has no other."""
    return mask | (torch.arange(mask.shape[1], device=mask.device) == 0)


class Gru(Translator):
    """A bidirectional GRU reader and a GRU writer with attention (Luong et al., 2015, global, bilinear)."""

    def __init__(
        self, vocabulary: Vocabulary, tokens: int, length: int, width: int = 192, hidden: int = 256, drop: float = 0.3
    ) -> None:
        super().__init__(vocabulary, tokens, length, width, drop)
        self.reader = nn.GRU(width, hidden // 2, bidirectional=True, batch_first=True)
        self.first = nn.Linear(hidden, hidden)
        self.writer = nn.GRU(width, hidden, batch_first=True)
        self.match = nn.Linear(hidden, hidden, bias=False)
        self.join = nn.Linear(2 * hidden, width)

    @staticmethod
    def _kernels() -> contextlib.AbstractContextManager[None]:
        # cuDNN's recurrent kernels have no backward in eval mode.
        return torch.backends.cudnn.flags(enabled=False)

    def encode(self, embedded: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(1).clamp_min(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.drop(embedded), lengths, True, enforce_sorted=False)
        with self._kernels():
            hidden, _ = self.reader(packed)
        out, _ = nn.utils.rnn.pad_packed_sequence(hidden, True, total_length=embedded.shape[1])
        return self.drop(out)

    def begin(self, memory: Tensor, mask: Tensor) -> Tensor:
        return torch.tanh(self.first(mean_words(memory, mask))).unsqueeze(0)

    def _run(self, memory: Tensor, mask: Tensor, before: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        with self._kernels():
            out, state = self.writer(self.drop(self.own(before)), state.contiguous())
        match = self.match(out) @ memory.transpose(1, 2)
        attention = match.masked_fill(~_readable(mask).unsqueeze(1), FAR).softmax(2)
        return self.drop(torch.tanh(self.join(torch.cat([out, attention @ memory], 2)))), state

    def hidden(self, memory: Tensor, mask: Tensor, before: Tensor) -> Tensor:
        return self._run(memory, mask, before, self.begin(memory, mask))[0]

    def step(self, memory: Tensor, mask: Tensor, state: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        hidden, state = self._run(memory, mask, token.unsqueeze(1), state)
        return self.write(hidden[:, 0]), state

    def keep(self, state: Tensor, rows: Tensor) -> Tensor:
        return state[:, rows]


class _Attention(nn.Module):
    """Scaled dot-product attention of several heads; keys and values may come from a cache."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask, self.keys, self.values, self.out = (nn.Linear(width, width) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def look_up(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (n, heads, L, D / heads)."""
        return self._split(self.keys(memory)), self._split(self.values(memory))

    def forward(self, x: Tensor, known: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """`mask` is bool, True where a key may be read, and broadcasts to (n, heads, T, L)."""
        found = F.scaled_dot_product_attention(self._split(self.ask(x)), *known, attn_mask=mask)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out


class _Layer(nn.Module):
    """A pre-norm layer: attention to itself, to the source where it is a writer's, and a feed-forward part."""

    def __init__(self, width: int, heads: int, drop: float, crossed: bool) -> None:
        super().__init__()
        self.own = _Attention(width, heads)
        self.source = _Attention(width, heads) if crossed else None
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if crossed else 2))
        self.drop = nn.Dropout(drop)

    def forward(
        self, x: Tensor, mask: Tensor | None, past: tuple[Tensor, Tensor] | None = None,
        source: tuple[Tensor, Tensor] | None = None, there: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
        """(output, keys and values so far)."""
        y = self.norms[0](x)
        known = self.own.look_up(y)
        if past is not None:
            known = torch.cat([past[0], known[0]], 2), torch.cat([past[1], known[1]], 2)
        x = x + self.drop(self.own(y, known, mask))
        if self.source is not None and source is not None:
            x = x + self.drop(self.source(self.norms[1](x), source, there))
        return x + self.drop(self.narrow(F.gelu(self.wide(self.norms[-1](x))))), known


def _source(layer: nn.Module) -> _Attention:
    """A writing layer's attention to the source."""
    assert isinstance(layer, _Layer) and layer.source is not None
    return layer.source


class Transformer(Translator):
    """A small pre-norm transformer (Vaswani et al., 2017) with learned positions; decoding keeps keys and values."""

    def __init__(
        self, vocabulary: Vocabulary, tokens: int, length: int, width: int = 128, layers: int = 2, heads: int = 4,
        longest: int = 48, drop: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__(vocabulary, tokens, length, width, drop)
        nn.init.normal_(self.embedding.weight[1:], std=width**-0.5)  # the padding stays zero
        self.longest = longest
        self.places = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.turns = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.reads = nn.ModuleList(_Layer(width, heads, drop, False) for _ in range(layers))
        self.writes = nn.ModuleList(_Layer(width, heads, drop, True) for _ in range(layers))
        self.read_norm, self.write_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.scale = width**0.5

    def encode(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Words beyond `longest` are not read: their memory is zero and masked."""
        x = embedded[:, : self.longest] * self.scale
        x, there = self.drop(x + self.places[: x.shape[1]]), self._there(mask)
        for layer in self.reads:
            x, _ = layer(x, there)
        memory: Tensor = self.read_norm(x)
        return memory

    def _there(self, mask: Tensor) -> Tensor:
        return _readable(mask)[:, None, None, : self.longest]

    def _embed(self, before: Tensor, first: int) -> Tensor:
        return self.drop(self.own(before) * self.scale + self.turns[first : first + before.shape[1]])

    def hidden(self, memory: Tensor, mask: Tensor, before: Tensor) -> Tensor:
        size = before.shape[1]
        earlier = torch.ones(size, size, dtype=torch.bool, device=before.device).tril()
        x, there = self._embed(before, 0), self._there(mask)
        for layer in self.writes:
            x, _ = layer(x, earlier, None, _source(layer).look_up(memory), there)
        out: Tensor = self.write_norm(x)
        return out

    def begin(self, memory: Tensor, mask: Tensor) -> list[Any]:
        source = [_source(layer).look_up(memory) for layer in self.writes]
        return [0, self._there(mask), source, [None] * len(source)]

    def step(self, memory: Tensor, mask: Tensor, state: list[Any], token: Tensor) -> tuple[Tensor, list[Any]]:
        turn, there, source, past = state
        x, now = self._embed(token.unsqueeze(1), turn), []
        for layer, known, held in zip(self.writes, source, past, strict=True):
            x, held = layer(x, None, held, known, there)
            now.append(held)
        return self.write(self.write_norm(x)[:, 0]), [turn + 1, there, source, now]

    def keep(self, state: list[Any], rows: Tensor) -> list[Any]:
        turn, there, source, past = state
        return [turn, there[rows], [(k[rows], v[rows]) for k, v in source], [(k[rows], v[rows]) for k, v in past]]
