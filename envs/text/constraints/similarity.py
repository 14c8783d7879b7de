"""The perturbed text means about what the clean one means, by a named sentence encoder."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from advgym.envs.text.models.hub_parts import load_part

CHUNK, KEPT = 64, 1 << 16  # texts per forward; embeddings kept


class Similarity:
    """Cosine of mean-pooled last hidden states of at least `least` (as sentence-transformers pool; no projection).

    Args:
        name: of the hub, or a local folder.
        least: in [-1, 1].
    """

    def __init__(self, name: str, least: float) -> None:
        self.name, self.least = name, least
        self._encoder = open_encoder(name)

    def public(self) -> dict[str, Any]:
        """The arguments that make it again."""
        return {"name": self.name, "least": self.least}

    def allow(self, texts: list[str], clean: list[str]) -> list[bool]:
        """Whether each text is near enough to its clean one."""
        return [bool(value >= self.least) for value in self.cosine(texts, clean)]

    def cosine(self, texts: list[str], clean: list[str]) -> Tensor:
        """Of each pair, float32 (n,)."""
        return (self._encoder.embed(texts) * self._encoder.embed(clean)).sum(1)


class Encoder:
    """A transformers model that reads texts."""

    def __init__(self, name: str) -> None:
        self.tokenizer, self.model = load_part(name, "AutoModel", "similarity=")
        longest = int(getattr(self.model.config, "max_position_embeddings", 512)) - 2
        self.longest = min(longest, int(self.tokenizer.model_max_length))
        self._kept: dict[str, Tensor] = {}

    def embed(self, texts: list[str]) -> Tensor:
        """Unit vectors, float32 (n, D) on the CPU; each different text is read once, in buckets of like length."""
        if len(self._kept) > KEPT:
            self._kept.clear()
        new = sorted({t for t in texts if t not in self._kept}, key=lambda t: (len(t), t))
        for start in range(0, len(new), CHUNK):
            part = new[start : start + CHUNK]
            self._kept.update(zip(part, self._read(part), strict=True))
        return torch.stack([self._kept[t] for t in texts]) if texts else torch.zeros(0, 1)

    @torch.no_grad()
    def _read(self, texts: list[str]) -> Tensor:
        x = self.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=self.longest)
        x = x.to(self.model.device)
        hidden = self.model(**x).last_hidden_state
        mask = x["attention_mask"].unsqueeze(2).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)
        return torch.nn.functional.normalize(mean.float(), dim=1).cpu()


@cache
def open_encoder(name: str) -> Encoder:
    """The encoder of a name or folder, kept for the process."""
    return Encoder(name)
