"""The perturbed text is about as likely as the clean one, by a named causal language model."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from advgym.envs.text.models.hub_parts import load_part

CHUNK, KEPT = 32, 1 << 18  # texts per forward; figures kept


class Perplexity:
    """Perplexity at most `most` times the clean text's.

    Args:
        name: of the hub, or a local folder.
        most: the ratio, such as 2.0.
    """

    def __init__(self, name: str, most: float) -> None:
        self.name, self.most = name, most
        self._model = open_reader(name)

    def public(self) -> dict[str, Any]:
        """The arguments that make it again."""
        return {"name": self.name, "most": self.most}

    def allow(self, texts: list[str], clean: list[str]) -> list[bool]:
        """Whether each text is likely enough beside its clean one."""
        return [bool(value <= self.most) for value in self.ratio(texts, clean)]

    def ratio(self, texts: list[str], clean: list[str]) -> Tensor:
        """Perplexity over the clean text's, float32 (n,)."""
        return (self._model.loss(texts) - self._model.loss(clean)).exp()


class Reader:
    """A causal language model that reads texts."""

    def __init__(self, name: str) -> None:
        self.tokenizer, self.model = load_part(name, "AutoModelForCausalLM", "perplexity=")
        longest = int(getattr(self.model.config, "max_position_embeddings", 1024))
        self.longest = min(longest, int(self.tokenizer.model_max_length)) - 1
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.model.config.bos_token_id)
        self.first = next((token for token in known if token is not None), None)
        self._kept: dict[str, float] = {}

    def loss(self, texts: list[str]) -> Tensor:
        """Mean negative log-likelihood per token, float32 (n,); 0 for an empty text. Each text is read once."""
        if len(self._kept) > KEPT:
            self._kept.clear()
        new = sorted({t for t in texts if t not in self._kept}, key=lambda t: (len(t), t))
        for start in range(0, len(new), CHUNK):
            part = new[start : start + CHUNK]
            self._kept.update(zip(part, self._read(part), strict=True))
        return torch.tensor([self._kept[t] for t in texts])

    @torch.no_grad()
    def _read(self, texts: list[str]) -> list[float]:
        rows = [row[: self.longest] for row in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        lead = [] if self.first is None else [self.first]  # so that the first word is judged, too
        most = max(map(len, rows)) + len(lead)
        ids = torch.zeros(len(rows), max(most, 1), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            full = [*lead, *row]
            ids[i, : len(full)] = torch.tensor(full, dtype=torch.int64)
            mask[i, : len(full)] = 1
        device = self.model.device
        ids, mask = ids.to(device), mask.to(device)
        logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2).float(), ids[:, 1:], reduction="none")
        many = mask[:, 1:].sum(1)
        found = torch.where(many > 0, (each * mask[:, 1:]).sum(1) / many.clamp_min(1), 0.0)
        return [float(v) for v in found.cpu()]


@cache
def open_reader(name: str) -> Reader:
    """The model of a name or folder, kept for the process."""
    return Reader(name)
