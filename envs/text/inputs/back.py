"""Texts as their owner gets them back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.envs.text.inputs.text_pairs import unpaired


def items(batch: Any, row: int, form: Tensor) -> list[dict[str, Any]]:
    """`text`, and `text2` of a pair, for each member."""
    x = batch.inputs(form.unsqueeze(0), torch.tensor([row], device=form.device))
    found = unpaired(x.strings())
    return [{"text": t} if isinstance(t, str) else {"text": t[0], "text2": t[1]} for t in found]
