"""Recordings as their owner gets them back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def items(batch: Any, row: int, form: Tensor) -> list[dict[str, Any]]:
    """`audio`: float32 (samples,) on the 16-bit lattice without padding, and its `rate`, for each member."""
    with torch.no_grad():
        _, heard, length = batch.pairs(form.unsqueeze(0), torch.tensor([row], device=form.device))
    many = length.tolist()
    return [{"audio": x[:n].cpu().numpy(), "rate": int(batch.rate)} for x, n in zip(heard, many, strict=True)]
