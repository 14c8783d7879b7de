"""Images as their owner gets them back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def items(batch: Any, row: int, form: Tensor) -> list[dict[str, Any]]:
    """`image`: float32 (C, H, W) in [0, 1], exactly what the victim saw, for each member."""
    with torch.no_grad():
        seen = batch.inputs(form.unsqueeze(0), torch.tensor([row], device=form.device))
    return [{"image": x.cpu().numpy()} for x in seen.float()]
