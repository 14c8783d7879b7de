"""Interval arithmetic through a network as it is written (Gowal et al. 2019; for words, Jia et al. 2019).

An `Interval` is passed to a module in place of a tensor. What the module calls on it is looked up by name in `RULES`;
what has no rule is refused by name, so that no bound is ever guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.errors import AdvgymError

GELU_LEAST = -0.7517915  # where gelu is smallest; it falls before and rises after
SLACK = 1e-4  # of the scores' size: what float32 answers may differ from the bounds by


class Interval:
    """Tensors that lie between `low` and `high`, of one shape, entry by entry."""

    def __init__(self, low: Tensor, high: Tensor, origin: tuple[Interval, Tensor, Tensor | None] | None = None) -> None:
        self.low, self.high = low, high
        self.origin = origin  # of the output of a linear layer: its input, weight and bias

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _rule(func.__name__)(*args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("shape", "dtype", "device", "ndim"):
            return getattr(self.low, name)
        if name in ("dim", "size", "numel"):
            return getattr(self.low, name)
        rule = _rule(name)
        return lambda *args, **kwargs: rule(self, *args, **kwargs)

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, index: Any) -> Interval:
        return Interval(self.low[index], self.high[index])

    def __add__(self, other: Any) -> Interval:
        return add(self, other)

    def __sub__(self, other: Any) -> Interval:
        return add(self, mul(other, -1.0))

    def __rsub__(self, other: Any) -> Interval:
        return add(mul(self, -1.0), other)

    def __mul__(self, other: Any) -> Interval:
        return mul(self, other)

    def __truediv__(self, other: Any) -> Interval:
        if isinstance(other, Interval):
            raise AdvgymError("interval bounds cannot be had through a quotient of two unknown numbers")
        return mul(self, 1.0 / other)

    __radd__, __rmul__ = __add__, __mul__


def _rule(name: str) -> Callable[..., Any]:
    if name not in RULES:
        known = ", ".join(sorted(RULES))
        raise AdvgymError(f"interval bounds cannot be had through {name!r}: a net that is bounded is made of {known}")
    return RULES[name]


# -- the rules ---------------------------------------------------------------------------------------------------------
def add(a: Any, b: Any) -> Any:
    """A + b."""
    if not isinstance(a, Interval) and not isinstance(b, Interval):
        return a + b
    (al, ah), (bl, bh) = _ends(a), _ends(b)
    return Interval(al + bl, ah + bh)


def mul(a: Any, b: Any) -> Any:
    """A times a known b."""
    if isinstance(b, Interval):
        a, b = b, a
    if isinstance(b, Interval):
        raise AdvgymError("interval bounds cannot be had through a product of two unknown numbers")
    if not isinstance(a, Interval):
        return a * b
    one, two = a.low * b, a.high * b
    return Interval(torch.minimum(one, two), torch.maximum(one, two))


def _ends(a: Any) -> tuple[Any, Any]:
    return (a.low, a.high) if isinstance(a, Interval) else (a, a)


def _affine(f: Callable[..., Tensor]) -> Callable[..., Interval]:
    """Centre and radius of a linear map: f(c) with the bias, f of |weight| on the radius."""

    def rule(x: Interval, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Interval:
        weight, bias = weight.to(x.low.dtype), None if bias is None else bias.to(x.low.dtype)
        centre, radius = (x.high + x.low) / 2, (x.high - x.low) / 2
        c, r = f(centre, weight, bias, *args, **kwargs), f(radius, weight.abs(), None, *args, **kwargs)
        return Interval(c - r, c + r, (x, weight, bias) if f is F.linear else None)

    return rule


def _rising(f: Callable[..., Any]) -> Callable[..., Interval]:
    """A map that rises, or only moves entries: both ends go through it."""

    def rule(x: Interval, *args: Any, **kwargs: Any) -> Interval:
        if not isinstance(x, Interval):
            raise AdvgymError(f"interval bounds cannot be had where {f.__name__} takes them as a setting")
        return Interval(f(x.low, *args, **kwargs), f(x.high, *args, **kwargs))

    return rule


def _cat(parts: Any, dim: int = 0) -> Interval:
    ends = [_ends(p) for p in parts]
    return Interval(torch.cat([low for low, _ in ends], dim), torch.cat([high for _, high in ends], dim))


def _gelu(x: Interval, approximate: str = "none") -> Interval:
    low, high = (F.gelu(end, approximate=approximate) for end in (x.low, x.high))
    bottom = F.gelu(x.low.new_tensor(GELU_LEAST), approximate=approximate) - 1e-6
    dips = (x.low < GELU_LEAST + 1e-3) & (x.high > GELU_LEAST - 1e-3)
    return Interval(torch.where(dips, torch.minimum(bottom, torch.minimum(low, high)), torch.minimum(low, high)),
                    torch.maximum(low, high))  # fmt: skip


def _batch_norm(
    x: Interval, mean: Tensor, var: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Interval:  # fmt: skip
    if training:
        raise AdvgymError("interval bounds cannot be had through batch_norm in training mode: its statistics move")
    shape = (1, -1, *[1] * (x.low.dim() - 2))
    dtype = x.low.dtype
    scale = (var.to(dtype) + eps).rsqrt() * (1 if weight is None else weight.to(dtype))
    shift = -mean.to(dtype) * scale + (0 if bias is None else bias.to(dtype))
    return add(mul(x, scale.view(shape)), shift.view(shape))  # type: ignore[no-any-return]


def _same(x: Interval, *_: Any, **__: Any) -> Interval:
    """Dropout: the bounds are of the net that answers, which drops nothing."""
    return x


_MOVES = "flatten view reshape transpose permute unsqueeze squeeze contiguous expand to float double masked_fill"
_RISE = "relu sigmoid tanh sum mean amax max_pool1d max_pool2d avg_pool1d avg_pool2d adaptive_avg_pool1d clamp_min"
RULES: dict[str, Callable[..., Any]] = {
    **{name: _rising(getattr(Tensor, name)) for name in _MOVES.split()},
    **{
        name: _rising(getattr(F, name, None) or getattr(torch, name))
        for name in [*_RISE.split(), "adaptive_avg_pool2d", "hardtanh"]
    },
    "linear": _affine(F.linear), "conv1d": _affine(F.conv1d), "conv2d": _affine(F.conv2d),
    "cat": _cat, "gelu": _gelu, "batch_norm": _batch_norm, "add": add, "mul": mul,
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "feature_dropout"), _same),
}  # fmt: skip


# -- what is asked of them ---------------------------------------------------------------------------------------------
def bounded(module: nn.Module | Callable[[Any], Any], x: Interval) -> Interval:
    """Bounds on the scores of every input in x, (n, classes).

    Raises:
        AdvgymError: by name, for whatever has no rule.
    """
    try:
        found = module(x)
    except (TypeError, AttributeError, RuntimeError) as error:
        raise AdvgymError(f"interval bounds cannot be had of this net: {str(error).splitlines()[0][:160]}") from None
    if not isinstance(found, Interval):
        raise AdvgymError("interval bounds cannot be had of this net: its answer hangs on something else")
    return found


def margins(scores: Interval, label: Tensor) -> Tensor:
    """Lower bounds of score[label] - score[j] for every class j, (n, classes); 0 at j = label.

    Where the scores are a linear layer's, the two rows of its weights are subtracted first, which is tighter.
    """
    classes = scores.shape[1]
    if scores.origin is None:
        low = scores.low.gather(1, label.unsqueeze(1)) - scores.high
    else:
        x, weight, bias = scores.origin
        centre, radius = (x.high + x.low) / 2, (x.high - x.low) / 2
        w = weight[label].unsqueeze(1) - weight  # (n, classes, width)
        low = (w @ centre.unsqueeze(2) - w.abs() @ radius.unsqueeze(2)).squeeze(2)
        if bias is not None:
            low = low + bias[label].unsqueeze(1) - bias
    return low.masked_fill(F.one_hot(label, classes).bool(), 0.0)


def certain(scores: Interval, label: Tensor) -> Tensor:
    """Whether every input of the interval is answered `label`: bool (n,), with some slack for rounding."""
    worst = margins(scores, label)
    size = 1 + torch.maximum(scores.low.abs(), scores.high.abs()).amax(1)
    own = F.one_hot(label, worst.shape[1]).bool()
    return (worst.masked_fill(own, torch.inf).amin(1) > SLACK * size) & worst.isfinite().all(1)
