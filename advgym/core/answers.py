"""What a model answers, in whatever form: the scores in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def scores_in(answer: Any, n: int) -> Any:
    """The scores in an answer: `.logits` of a model's output, the first tensor of a tuple, a list of rows as one."""
    if isinstance(answer, dict):
        answer = answer.get("logits", answer.get("scores", answer))
    answer = getattr(answer, "logits", answer)
    if isinstance(answer, list | tuple) and answer and isinstance(answer[0], Tensor):
        rows = len(answer) == n and all(isinstance(a, Tensor) and a.shape == answer[0].shape for a in answer)
        if rows and (isinstance(answer, list) or answer[0].dim() < 2):
            return torch.stack(list(answer))
        return answer[0]
    return answer
