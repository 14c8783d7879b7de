"""Reading a proposal: what is malformed raises, and which rows of it may be asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.core.batch import Batch, Look, within
from advgym.errors import Malformed


def read_proposal(
    actions: Any, batch: Batch, lead: tuple[int, ...], device: torch.device, *, white: bool
) -> tuple[Tensor, Tensor | None]:
    """The action as a flat (rows, *shape) tensor on the device, and the weights of relaxed edits.

    Args:
        lead: (lanes,) or (lanes, P), what precedes the shape of one perturbation.
        white: whether gradients may be asked for.

    Raises:
        Malformed: for anything that the action space does not declare.
    """
    weights = None
    if batch.kind == "edits" and isinstance(actions, tuple) and len(actions) == 2:
        actions, weights = actions
    want = (*lead, *batch.shape)
    try:
        p = actions if isinstance(actions, Tensor) else torch.as_tensor(np.asarray(actions))
    except (TypeError, ValueError, RuntimeError) as error:
        raise Malformed(f"a proposal is a tensor or an array of shape {want}: {error}") from None
    integral = not p.dtype.is_floating_point and not p.dtype.is_complex and p.dtype != torch.bool
    if tuple(p.shape) != want or (p.dtype.is_floating_point if batch.kind == "field" else integral) is False:
        kind = "float32" if batch.kind == "field" else "int64"
        raise Malformed(f"a proposal is {kind} {want}, not {str(p.dtype).removeprefix('torch.')} {tuple(p.shape)}")
    p = p.to(device, torch.float32 if batch.kind == "field" else torch.int64)
    if len(lead) > 1:
        p = p.reshape(-1, *batch.shape)
    if not white and (p.requires_grad or weights is not None):
        raise Malformed("a proposal that requires grad needs 'white-box' knowledge")
    if weights is not None:
        weights = read_weights(weights, want[:-1]).reshape(-1, batch.shape[0]).to(device)
    return p, weights


def read_weights(weights: Any, want: tuple[int, ...]) -> Tensor:
    """Weights of relaxed edits as float32, still differentiable.

    Raises:
        Malformed: for anything but a tensor of floats of this shape.
    """
    if not isinstance(weights, Tensor) or tuple(weights.shape) != want or not weights.is_floating_point():
        what = f"{weights.dtype} {tuple(weights.shape)}" if isinstance(weights, Tensor) else type(weights).__name__
        raise Malformed(f"weights are a float32 tensor {want}, not {what}")
    return weights.to(torch.float32)


def first_of(wanted: Tensor, left: Tensor) -> Tensor:
    """The first `left` of each lane's wanted proposals: bool (lanes, P)."""
    return wanted & (wanted.cumsum(1) <= left.unsqueeze(1))


def bound(look: Look, p: Tensor, weights: Tensor | None, reach: Tensor, factor: float | None) -> Look:
    """What may be evaluated where the threat model bounds it: proposals within `factor` times the constraint.

    Otherwise one lane could ask about another's sample, and easy samples would pay for hard ones. Relaxed edits count
    as far as their weights go.
    """
    if factor is None:
        return look
    size = look.distance if weights is None else torch.where(p[..., 0] < 0, 0.0, weights.detach()).sum(1)
    return look._replace(real=look.real & within(size, reach, factor))


def relax(look: Look, p: Tensor, weights: Tensor) -> Look:
    """Relaxed edits count only where every weight is 1, and are no input where one leaves [0, 1]."""
    pad, w = p[..., 0] < 0, weights.detach()
    real = look.real & (pad | ((w >= 0) & (w <= 1))).all(1)
    # The form is sorted, the weights are not: edits commute, so the proposal itself is applied.
    return look._replace(form=p, real=real, valid=look.valid & real & (pad | (w == 1)).all(1))
