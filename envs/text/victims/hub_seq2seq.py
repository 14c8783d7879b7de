"""Seq2seq models of `transformers` as victims: greedy, with a KV cache, scores over the tokens that goals ask about."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from advgym.core.victim import Victim
from advgym.envs.text.models.writers import seal
from advgym.envs.text.victims.hub import Reader, open_model
from advgym.errors import AdvgymError

REST = "<other>"  # stands for every token that is not asked about
ROWS = 64  # texts that are decoded together
LOGITS = 1 << 25  # most logits that a backward pass makes at once
BANNED = -1e4  # logit of a token that the model never writes


class Writer(Reader):
    """Scores (n, T, K + 2) of the greedy output: END, K kept tokens, and the best of all others.

    A margin between kept tokens, END and "any other" needs no more than that, so the goals are exact while 60,000
    columns shrink to the words that the outputs of a task use. Without `keep` they are of the whole vocabulary.

    Args:
        model, tokenizer: of transformers.
        length: T, output tokens at most.
        keep: int64 (K,) ids of the model; None for all but the ends.
        longest, cap: see `Reader`.
        first: token that every output begins with and that is no part of it (a language code); None for the model's.
    """

    ban: Tensor
    keep: Tensor
    known: Tensor

    def __init__(
        self, model: nn.Module, tokenizer: Any, length: int = 32, keep: Tensor | None = None,
        longest: int | None = None, cap: int = 0, first: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(model, tokenizer, longest, cap)
        self.length = length
        settings: Any = model.generation_config
        config: Any = model.config
        start = settings.decoder_start_token_id
        self.first = settings.forced_bos_token_id if first is None else first
        begin = int(config.decoder_start_token_id if start is None else start)
        self.prefix = [begin] if self.first is None else [begin, int(self.first)]
        ends = settings.eos_token_id if settings.eos_token_id is not None else config.eos_token_id
        self.ends = [int(e) for e in (ends if isinstance(ends, list | tuple) else [ends])]
        self.last = settings.forced_eos_token_id
        banned = [*(settings.suppress_tokens or []), *(w[0] for w in settings.bad_words_ids or [] if len(w) == 1)]
        self.size = int(model.get_output_embeddings().weight.shape[0])  # type: ignore[operator]
        ban = torch.zeros(self.size)
        ban[banned] = BANNED
        self.register_buffer("ban", ban, persistent=False)
        special = {*self.ends, *self.prefix}
        every = torch.tensor([i for i in range(self.size) if i not in special])
        self.whole = keep is None
        self.register_buffer("keep", every if keep is None else keep, persistent=False)
        known = torch.zeros(self.size, dtype=torch.bool)
        known[self.keep.cpu()] = True
        known[self.ends] = True
        self.closed = bool(known.all())
        self.register_buffer("known", known, persistent=False)

    @property
    def words(self) -> tuple[str, ...]:
        """The output tokens after END, as the tokenizer writes them, and REST."""
        return (*self.tokenizer.convert_ids_to_tokens(self.keep.tolist()), REST)

    def joined(self, words: list[str]) -> str:
        """A text of output tokens."""
        return str(self.tokenizer.convert_tokens_to_string([w for w in words if w])).strip()

    def narrowed(self, keep: Tensor) -> Writer:
        """The same model with scores over other tokens."""
        made = Writer(self.model, self.tokenizer, self.length, keep, self.longest, self.cap, self.first)
        return made.to(self.device).eval()

    def forward(self, x: Any) -> Tensor:
        """Scores of each text."""
        scores = self.run(x, self._answer)
        return scores if isinstance(x, list) else scores.to(x.device)

    @torch.no_grad()
    def outputs(self, x: Any) -> Tensor:
        """Greedy outputs in the model's own ids, int64 (n, T), -1 from the end on."""

        def tokens(ids: Any, hidden: Any, mask: Tensor, kinds: Any) -> Tensor:
            parts = [self._greedy(self._encode(i, None, m), m, False)[0] for i, m in _split(ids, mask, ROWS)]
            return torch.cat(parts)

        found = self.run(x, tokens)
        over = torch.isin(found, torch.tensor(self.ends, device=found.device)).cumsum(1) > 0
        return torch.where(over, -1, found)

    def _encode(self, ids: Any, hidden: Any, mask: Tensor) -> Tensor:
        named = {"input_ids": ids} if hidden is None else {"inputs_embeds": hidden}
        found: Tensor = self.model.get_encoder()(**named, attention_mask=mask).last_hidden_state  # type: ignore[operator]
        return found

    def _answer(self, ids: Any, hidden: Any, mask: Tensor, kinds: Any) -> Tensor:
        source, rows = (
            (ids, ROWS) if hidden is None else (hidden, max(1, min(ROWS, LOGITS // (self.length * self.size))))
        )
        return torch.cat([self._some(s, m, hidden is not None) for s, m in _split(source, mask, rows)])

    def _some(self, source: Tensor, mask: Tensor, soft: bool) -> Tensor:
        memory = self._encode(None, source, mask) if soft else self._encode(source, None, mask)
        grad = torch.is_grad_enabled() and memory.requires_grad
        with torch.no_grad():
            tokens, scores = self._greedy(memory.detach(), mask, not grad)
        if not grad:
            return seal(scores)
        most = max(1, int(_before_end(tokens, self.ends).sum(1).max()) + 1)
        # The logits of the whole vocabulary are made again in the backward pass instead of being kept.
        again: Tensor = checkpoint(self._teach, memory, mask, tokens[:, :most], use_reentrant=False)
        blank = again.new_zeros(len(again), self.length - again.shape[1], again.shape[2])
        return seal(torch.cat([again, blank], 1))

    def _logits(self, found: Tensor, first: int) -> Tensor:
        """The model's logits from position `first` on, with its own rules: banned tokens, a forced last one."""
        out = found.float() + self.ban
        if self.last is None or first + out.shape[1] < self.length:
            return out
        only = torch.full_like(out[:, :1], BANNED)
        only[..., self.last] = 0.0
        return torch.cat([out[:, :-1], only], 1)

    def _narrow(self, logits: Tensor) -> Tensor:
        """(n, t, size) -> (n, t, K + 2)."""
        end = logits[..., self.ends].amax(-1, keepdim=True)
        if self.closed:
            rest = torch.full_like(end, BANNED)
        else:
            with torch.no_grad():
                best = logits.masked_fill(self.known, -torch.inf).argmax(-1, keepdim=True)
            rest = logits.gather(-1, best)
        return torch.cat([end, logits[..., self.keep], rest], -1)

    def _greedy(self, memory: Tensor, mask: Tensor, scored: bool) -> tuple[Tensor, Tensor]:
        """Tokens int64 (n, T), an end repeated after itself, and their scores where asked for."""
        n, device = len(memory), memory.device
        end = self.ends[0]
        tokens = torch.full((n, self.length), end, device=device)
        scores = memory.new_zeros(n, self.length if scored else 0, len(self.keep) + 2, dtype=torch.float32)
        over = torch.zeros(n, dtype=torch.bool, device=device)
        token, cache = torch.tensor([self.prefix], device=device).expand(n, -1), None
        for t in range(self.length):
            out = self.model(
                encoder_outputs=(memory,), attention_mask=mask, decoder_input_ids=token, past_key_values=cache,
                use_cache=True,
            )  # fmt: skip
            cache = out.past_key_values
            logits = self._logits(out.logits[:, -1:], t)
            if scored:
                scores[:, t] = self._narrow(logits)[:, 0]
            chosen = torch.where(over, end, logits[:, 0].argmax(1))
            tokens[:, t] = chosen
            over |= torch.isin(chosen, torch.tensor(self.ends, device=device))
            if bool(over.all()):
                break
            token = chosen.unsqueeze(1)
        return tokens, scores

    def _teach(self, memory: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
        begin = tokens.new_tensor([self.prefix]).expand(len(tokens), -1)
        out = self.model(
            encoder_outputs=(memory,), attention_mask=mask, decoder_input_ids=torch.cat([begin, tokens[:, :-1]], 1),
            use_cache=False,
        )  # fmt: skip
        return self._narrow(self._logits(out.logits[:, len(self.prefix) - 1 :], 0))


def _split(source: Tensor, mask: Tensor, rows: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(source.split(rows), mask.split(rows), strict=True))


def _before_end(tokens: Tensor, ends: list[int]) -> Tensor:
    return torch.isin(tokens, torch.tensor(ends, device=tokens.device)).cumsum(1) == 0


def load(
    source: str, *, name: str | None = None, length: int = 32, longest: int | None = None, cap: int = 0,
    first: str = "",
) -> Victim:  # fmt: skip
    """A seq2seq model of transformers as a victim of `text/seq2seq-wordswap`.

    Args:
        source: hub name, or the folder that save_pretrained wrote (config, tokenizer, model.safetensors).
        name: of the victim; its source without one.
        length: output tokens at most.
        longest: input tokens; None for the model's own.
        cap: input tokens per forward with their padding; 0 for the device's default.
        first: token that every output begins with, as a multilingual model's target language "deu_Latn".

    Raises:
        DataError: the model is not there, or its weights are pickles.
    """
    model, tokenizer = open_model(source, "AutoModelForSeq2SeqLM", "model that writes")
    return wrap(model, tokenizer, source, name=name, length=length, longest=longest, cap=cap, first=first)


def wrap(
    model: nn.Module, tokenizer: Any, source: str, *, name: str | None = None, length: int = 32,
    longest: int | None = None, cap: int = 0, first: str = "",
) -> Victim:  # fmt: skip
    """A seq2seq model and its tokenizer as a victim; see `load`."""
    code = tokenizer.get_vocab().get(first) if first else None
    if first and code is None:
        raise AdvgymError(f"first={first!r} is no token of {source}")
    module = Writer(model, tokenizer, length, None, longest, cap, code).eval()
    card = {"source": source, "architecture": type(model).__name__, "length": length}
    soft = module.template is not None
    return Victim(module, name=name or source, access="gradients" if soft else "scores", card=card)


def writer(name: str, *, source: str = "", length: int = 32, longest: int = 0, cap: int = 0, first: str = "") -> Victim:
    """`load` as a row of [victims]; `seq2seq:PATH` names one on the command line."""
    return load(source, name=name, length=length, longest=longest or None, cap=cap, first=first)
