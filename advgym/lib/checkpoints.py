"""Checkpoints of `transformers`: which weights of a model a file did not give."""

from __future__ import annotations

from typing import Any

from torch import nn


def drawn_weights(model: nn.Module, info: Any) -> list[str]:
    """Names of parameters that a checkpoint lacks, or has in another shape: they are drawn at random.

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` tells.
    """
    own = {name for name, _ in model.named_parameters()}
    lost = sorted(k for k in told(info, "missing_keys") if k in own)
    other = [m[0] if isinstance(m, tuple | list) else m for m in told(info, "mismatched_keys")]
    return lost + sorted(str(k) for k in other)


def told(info: Any, key: str) -> Any:
    """An entry of loading information, a dict or an object; () for none."""
    found = info.get(key) if isinstance(info, dict) else getattr(info, key, None)
    return found or ()
