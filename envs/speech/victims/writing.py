"""Whisper as a victim: greedy decoding, then its own output read again as teacher, for scores of some tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.envs.speech.models.fronts import WhisperFront
from advgym.errors import AdvgymError, VictimError

END = 0  # of the scores: the end of the output; tokens 1 to K are kept ones, K + 1 is any other
ROWS = {"cpu": 8, "cuda": 64}  # recordings that are decoded together
LENGTH = 32  # output tokens at most, where nobody says
BANNED = -30.0  # log-probability of a token that cannot be written


class Writer(nn.Module):
    """Scores (n, T, K + 2) of the greedy output: the end, K kept tokens, and the best of all others.

    They are log-probabilities along the model's own output, teacher-forced, so both paths, with gradients and without,
    give the same numbers. Waveforms are padded with silence to the model's window (30 s), and the rest is cut.

    Args:
        model, extractor, tokenizer: of transformers.
        length: T, output tokens at most; 0 for 32, or as many as the model writes.
        keep: int64 (K,) ids of the model; None for every token but the ends.
        prefix: ids that every output begins with and that are no part of it; None for what the model says.
    """

    keep: Tensor
    ban: Tensor
    ban_first: Tensor
    known: Tensor

    def __init__(
        self, model: nn.Module, extractor: Any, tokenizer: Any, length: int = 0, keep: Tensor | None = None,
        prefix: list[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.extractor, self.tokenizer = model, extractor, tokenizer
        self.front = WhisperFront(extractor)
        settings: Any = model.generation_config
        config: Any = model.config
        self.prefix = prefix_of(model) if prefix is None else prefix
        ends = settings.eos_token_id if settings.eos_token_id is not None else config.eos_token_id
        self.ends = [int(e) for e in (ends if isinstance(ends, list | tuple) else [ends])]
        size = int(config.vocab_size)
        most = int(getattr(config, "max_target_positions", 448)) - len(self.prefix)
        length = length or min(LENGTH, most)
        if not 1 <= length <= most:
            raise AdvgymError(f"length is the number of output tokens, 1 to {most} of this model, not {length}")
        self.length = length
        ban = torch.zeros(size)
        ban[[i for i in settings.suppress_tokens or [] if 0 <= i < size]] = -torch.inf
        first = ban.clone()
        first[[i for i in settings.begin_suppress_tokens or [] if 0 <= i < size]] = -torch.inf
        every = torch.tensor([i for i in range(size) if i not in {*self.ends, *self.prefix}])
        known = torch.zeros(size, dtype=torch.bool)
        known[every if keep is None else keep] = True
        known[self.ends] = True
        kept = every if keep is None else keep
        for name, value in {"keep": kept, "ban": ban, "ban_first": first, "known": known}.items():
            self.register_buffer(name, value, persistent=False)

    def narrowed(self, keep: Tensor) -> Writer:
        """The same model with scores over other tokens."""
        device = self.keep.device
        made = Writer(self.model, self.extractor, self.tokenizer, self.length, keep.cpu(), self.prefix)
        return made.to(device).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Scores of waveforms (n, samples)."""
        rows = ROWS.get(x.device.type, ROWS["cpu"])
        return torch.cat([self._some(part) for part in torch.split(x, rows)])

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Tensor:
        """Greedy outputs in the model's own ids, int64 (n, T), -1 from the end on."""
        rows = ROWS.get(x.device.type, ROWS["cpu"])
        found = torch.cat([self._greedy(self._encode(part)) for part in torch.split(x, rows)])
        return torch.where(self._over(found) > 0, -1, found)

    def text(self, ids: list[int]) -> str:
        """The text of the model's ids."""
        return str(self.tokenizer.decode([i for i in ids if i >= 0], skip_special_tokens=True)).strip()

    def ids(self, text: str) -> list[int]:
        """The model's ids of a text, as it stands after the beginning of an output."""
        found: list[int] = self.tokenizer(f" {text.strip()}", add_special_tokens=False)["input_ids"]
        return found

    def _encode(self, x: Tensor) -> Tensor:
        found: Tensor = self.model.get_encoder()(self.front(x)).last_hidden_state  # type: ignore[operator]
        return found

    def _over(self, tokens: Tensor) -> Tensor:
        """Ends up to and with each position."""
        return torch.isin(tokens, torch.tensor(self.ends, device=tokens.device)).long().cumsum(1)

    def _some(self, x: Tensor) -> Tensor:
        memory = self._encode(x)
        with torch.no_grad():
            tokens = self._greedy(memory.detach())
        begin = tokens.new_tensor([self.prefix]).expand(len(tokens), -1)
        out = self.model(
            encoder_outputs=(memory,), decoder_input_ids=torch.cat([begin, tokens[:, :-1]], 1), use_cache=False
        )  # fmt: skip
        logits = self._ruled(out.logits[:, len(self.prefix) - 1 :].float(), True)
        logp = torch.log_softmax(logits, 2).clamp_min(BANNED)
        end = logp[..., self.ends].amax(2, keepdim=True)
        if bool(self.known.all()):
            rest = torch.full_like(end, BANNED)
        else:
            rest = logp.masked_fill(self.known, -torch.inf).amax(2, keepdim=True)
        scores = torch.cat([end, logp[..., self.keep], rest], 2)
        after = (self._over(tokens) - torch.isin(tokens, tokens.new_tensor(self.ends)).long() > 0).unsqueeze(2)
        only = torch.full_like(scores[:1, :1], BANNED)
        only[..., END] = 0.0
        return torch.where(after, only, scores)

    def _ruled(self, logits: Tensor, first: bool) -> Tensor:
        """With the model's own rules: tokens that it never writes, and those that it never begins with."""
        rules = self.ban.expand(logits.shape[1], -1)
        if first:
            rules = torch.cat([self.ban_first.unsqueeze(0), rules[1:]])
        return logits + rules

    def _greedy(self, memory: Tensor) -> Tensor:
        """Tokens int64 (n, T), an end repeated after itself."""
        n, device = len(memory), memory.device
        tokens = torch.full((n, self.length), self.ends[0], device=device)
        over = torch.zeros(n, dtype=torch.bool, device=device)
        token, cache = torch.tensor([self.prefix], device=device).expand(n, -1), None
        for t in range(self.length):
            out = self.model(
                encoder_outputs=(memory,), decoder_input_ids=token, past_key_values=cache, use_cache=True
            )  # fmt: skip
            cache = out.past_key_values
            logits = self._ruled(out.logits[:, -1:].float(), t == 0)[:, 0]
            chosen = torch.where(over, self.ends[0], logits.argmax(1))
            tokens[:, t] = chosen
            over |= torch.isin(chosen, torch.tensor(self.ends, device=device))
            if bool(over.all()):
                break
            token = chosen.unsqueeze(1)
        return tokens


def prefix_of(model: Any, language: str = "en") -> list[int]:
    """Ids that an output begins with: its start, and of a multilingual model language, task and "no timestamps".

    Raises:
        AdvgymError: for a language that the model has not.
    """
    settings, config = model.generation_config, model.config
    start = settings.decoder_start_token_id
    out = [int(config.decoder_start_token_id if start is None else start)]
    languages, tasks = getattr(settings, "lang_to_id", None), getattr(settings, "task_to_id", None)
    if languages and getattr(settings, "is_multilingual", True):
        key = f"<|{language}|>"
        if key not in languages:
            raise AdvgymError(f"language {language!r} is none of this model's: {', '.join(k[2:-2] for k in languages)}")
        out += [int(languages[key]), *([int(tasks["transcribe"])] if tasks else [])]
    elif getattr(settings, "forced_decoder_ids", None):
        return [*out, *(int(i) for _, i in settings.forced_decoder_ids if i is not None)]
    quiet = getattr(settings, "no_timestamps_token_id", None)
    return out if quiet is None else [*out, int(quiet)]


def wrap(
    model: nn.Module, extractor: Any, tokenizer: Any, *, name: str, card: dict[str, Any], length: int = 0,
    language: str = "en",
) -> Victim:  # fmt: skip
    """Whisper as a victim of `speech/dictate`.

    Raises:
        VictimError: for an encoder-decoder whose input is no log-mel spectrogram of Whisper's.
    """
    if type(extractor).__name__ != "WhisperFeatureExtractor":
        raise VictimError(
            f"{type(model).__name__} reads its input by {type(extractor).__name__}; of models that write, Whisper "
            "alone is read here. A callable of waveforms that returns texts is a victim of speech/transcribe"
        )
    module = Writer(model, extractor, tokenizer, length, None, prefix_of(model, language))
    told = {"length": module.length, "prefix": str(tokenizer.decode(module.prefix)), "seconds": module.front.longest
            / int(extractor.sampling_rate)}  # fmt: skip
    return Victim(module.eval(), name=name, access="gradients", card={**card, **told})
