"""Small encoder-decoders that write headlines: free-running greedy, with scores differentiable in the words."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.kinds.sequences import END
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.vocabulary import Vocabulary
from advgym.envs.text.models.classifiers import WordModel, mean_words

ENDED = -30.0  # logit of every word after the end, where END has 0


class SequenceModel(WordModel):
    """Scores (n, T, V) of its own greedy output: generated without a graph, then read once more as teacher.

    The argmax of the scores is the generated sequence; after its end, END has 0 and all words have ENDED. Subclasses
    write `encode` and `decode`; a decode of all T positions makes every generation step the same arithmetic.

    Args:
        tokens: V, output tokens with END at 0.
        length: T, output positions.
    """

    stepwise = False  # whether `begin` and `step` decode one token at a time

    def __init__(self, vocabulary: Vocabulary, tokens: int, length: int, width: int) -> None:
        super().__init__(vocabulary, width)
        self.tokens, self.length = tokens, length
        self.own = nn.Embedding(tokens + 1, width)  # the last one begins a sequence

    def encode(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Memory (n, L, H) of the source."""
        raise NotImplementedError

    def decode(self, memory: Tensor, mask: Tensor, before: Tensor) -> Tensor:
        """Logits (n, T, V), each position knowing the tokens `before` it, (n, T) of [begin, token 0, token 1 ...]."""
        raise NotImplementedError

    def shifted(self, tokens: Tensor) -> Tensor:
        """What stands before each position."""
        begin = tokens.new_full((len(tokens), 1), self.tokens)
        return torch.cat([begin, tokens[:, :-1]], 1)

    def begin(self, memory: Tensor, mask: Tensor) -> Any:
        """What a step-by-step decoder knows before the first token."""
        return None

    def step(self, memory: Tensor, mask: Tensor, state: Any, token: Tensor) -> tuple[Tensor, Any]:
        """Logits (n, V) after `token` (n,), and the state after it."""
        raise NotImplementedError

    def keep(self, state: Any, rows: Tensor) -> Any:
        """The state of these rows alone."""
        raise NotImplementedError

    def read(self, embedded: Tensor, mask: Tensor) -> Tensor:
        memory = self.encode(embedded, mask)
        with torch.no_grad():
            write = self._write_steps if self.stepwise else self._write
            tokens, scores = write(memory.detach(), mask)
        return self._again(memory, mask, tokens) if torch.is_grad_enabled() and memory.requires_grad else scores

    def _write(self, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Greedy tokens (n, T) and their scores."""
        tokens = torch.full((len(memory), self.length), END, device=memory.device)
        over = torch.zeros(len(memory), dtype=torch.bool, device=memory.device)
        for t in range(self.length):
            logits = self.decode(memory, mask, self.shifted(tokens))
            tokens[:, t] = torch.where(over, END, logits[:, t].argmax(1))
            over |= tokens[:, t] == END
            if bool(over.all()):
                break
        return tokens, seal(logits)

    def _write_steps(self, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The same a token at a time; a row that has ended is computed no further."""
        tokens = torch.full((len(memory), self.length), END, device=memory.device)
        scores = memory.new_full((len(memory), self.length, self.tokens), ENDED)
        scores[..., END] = 0.0
        rows, state = torch.arange(len(memory), device=memory.device), self.begin(memory, mask)
        token = torch.full_like(rows, self.tokens)
        for t in range(self.length):
            scores[rows, t], state = self.step(memory, mask, state, token)
            token = tokens[rows, t] = scores[rows, t].argmax(1)
            live = (token != END).nonzero().squeeze(1)
            if len(live) < len(rows):
                rows, token, memory, mask = rows[live], token[live], memory[live], mask[live]
                state = self.keep(state, live)
            if not len(rows):
                break
        return tokens, scores

    def _again(self, memory: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
        """The scores with their graph; a step-by-step decoder does not read again what lies after the last end."""
        if not self.stepwise:
            return seal(self.decode(memory, mask, self.shifted(tokens)))
        last = min(self.length, int((tokens != END).sum(1).max()) + 1)
        scores = seal(self.decode(memory, mask, self.shifted(tokens)[:, :last]))
        return torch.cat([scores, closed(scores).expand(len(scores), self.length - last, -1)], 1)

    def teach(self, x: TextInput, target: Tensor) -> Tensor:
        """Teacher-forced logits (n, T, V) for training."""
        embedded, mask = x.embed(self.embedding.weight, self.remap(x.vocabulary, x.device))
        return self.decode(self.encode(embedded, mask), mask, self.shifted(target))


def seal(logits: Tensor) -> Tensor:
    """The same logits, with what comes after the first END replaced by END 0, words ENDED."""
    end = logits.argmax(2) == END
    after = (end.cumsum(1) - end.long()) > 0
    return torch.where(after.unsqueeze(2), closed(logits), logits)


def closed(logits: Tensor) -> Tensor:
    """The scores (V,) of a position after the end."""
    out = logits.new_full(logits.shape[2:], ENDED)
    out[END] = 0.0
    return out


class Bart(SequenceModel):
    """A small BART from scratch: the architecture of transformers, words and output tokens of our own."""

    def __init__(
        self, vocabulary: Vocabulary, tokens: int, length: int, width: int = 64, layers: int = 2, heads: int = 2,
        longest: int = 24, drop: float = 0.1,
    ) -> None:  # fmt: skip
        from transformers import BartConfig, BartModel

        super().__init__(vocabulary, tokens, length, width)
        self.longest = longest
        config = BartConfig(
            vocab_size=4, d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads,
            decoder_attention_heads=heads, encoder_ffn_dim=2 * width, decoder_ffn_dim=2 * width,
            max_position_embeddings=longest + 2, dropout=drop, attention_dropout=drop, activation_dropout=0.0,
            scale_embedding=False, use_cache=False, pad_token_id=1, bos_token_id=0, eos_token_id=2,
            decoder_start_token_id=2, forced_eos_token_id=None,
        )  # fmt: skip
        self.body = BartModel(config)
        self.start = nn.Parameter(torch.zeros(width))
        self.last = nn.Linear(width, tokens)

    def _with_start(self, mask: Tensor) -> Tensor:
        return torch.cat([mask.new_ones(len(mask), 1), mask[:, : self.longest - 1]], 1).to(torch.int64)

    def encode(self, embedded: Tensor, mask: Tensor) -> Tensor:
        # A start vector keeps an empty text from an empty attention.
        source = torch.cat([self.start.expand(len(embedded), 1, -1), embedded[:, : self.longest - 1]], 1)
        hidden: Tensor = self.body.encoder(
            inputs_embeds=source, attention_mask=self._with_start(mask)
        ).last_hidden_state
        return hidden

    def decode(self, memory: Tensor, mask: Tensor, before: Tensor) -> Tensor:
        hidden = self.body.decoder(
            inputs_embeds=self.own(before), encoder_hidden_states=memory, encoder_attention_mask=self._with_start(mask),
            use_cache=False,
        ).last_hidden_state  # fmt: skip
        logits: Tensor = self.last(hidden)
        return logits


class Recurrent(SequenceModel):
    """A GRU encoder-decoder with dot-product attention (Luong et al., 2015): the surrogate of another build."""

    def __init__(self, vocabulary: Vocabulary, tokens: int, length: int, width: int = 32, hidden: int = 64) -> None:
        super().__init__(vocabulary, tokens, length, width)
        self.reader = nn.GRU(width, hidden // 2, bidirectional=True, batch_first=True)
        self.writer = nn.GRU(width, hidden, batch_first=True)
        self.last = nn.Linear(2 * hidden, tokens)

    @staticmethod
    def _kernels() -> contextlib.AbstractContextManager[None]:
        # cuDNN's recurrent kernels have no backward in eval mode.
        return torch.backends.cudnn.flags(enabled=False)

    def encode(self, embedded: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(1).clamp_min(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        with self._kernels():
            hidden, _ = self.reader(packed)
        out, _ = nn.utils.rnn.pad_packed_sequence(hidden, batch_first=True, total_length=embedded.shape[1])
        return out

    def decode(self, memory: Tensor, mask: Tensor, before: Tensor) -> Tensor:
        first = mean_words(memory, mask).unsqueeze(0).contiguous()
        with self._kernels():
            state, _ = self.writer(self.own(before), first)
        match = state @ memory.transpose(1, 2)
        # Not -inf: an empty source has no word to attend to.
        attention = match.masked_fill(~mask.unsqueeze(1), -1e4).softmax(2)
        logits: Tensor = self.last(torch.cat([state, attention @ memory], 2))
        return logits
