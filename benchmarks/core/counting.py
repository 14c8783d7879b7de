"""Counts what a piece of code asks of the device: ATen operations, and the waits for an answer of it.

An operation is one call that reaches ATen's dispatcher, in a forward or in a backward. Views are none: they move no
data (`view`, `expand`, `select`, `detach` and whatever else ATen calls an alias). What a `Marked` model does in its
forward and its backward is left out. A wait is an operation whose answer the program needs before it goes on (on a GPU
the queue runs empty there); it is counted as an operation, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = (
    "_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "unique_dim_consecutive", "bincount",
)  # fmt: skip
COPIES = (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__)  # to the host; on a CPU no operation


class Counting:
    """Within it, `operations` and `waits` are counted by name. On a CPU: a GPU's backward has a thread of its own."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._modes = (_Dispatched(self), _Called(self))

    def __enter__(self) -> Counting:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    @property
    def so_far(self) -> tuple[int, int]:
        """(operations, waits)."""
        return self.operations.total(), self.waits.total()

    def add(self, name: str, *, waits: bool) -> None:
        """Count one, unless a marked model asked for it."""
        if not Marked.inside:
            self.operations[name] += 1
            self.waits[name] += waits


class _Dispatched(TorchDispatchMode):
    def __init__(self, into: Counting) -> None:
        super().__init__()
        self.into = into

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if not func.is_view:
            self.into.add(name, waits=name in WAITS or _by_mask(name, args))
        return func(*args, **(kwargs or {}))


class _Called(TorchFunctionMode):
    def __init__(self, into: Counting) -> None:
        super().__init__()
        self.into = into

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in COPIES:
            self.into.add(func.__name__, waits=True)
        return func(*args, **(kwargs or {}))


def _by_mask(name: str, args: Any) -> bool:
    """Indexing by bools first asks how many there are."""
    given = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in given)


def count(function: Callable[[], Any]) -> tuple[int, int]:
    """(operations, waits) of one call."""
    with Counting() as counted:
        function()
    return counted.so_far


class Marked(nn.Module):
    """A model whose own operations, forward and backward, are not counted."""

    inside = False

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        self.marked = model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("marked"), name)

    def forward(self, x: Any, **more: Any) -> Any:
        """The model's answer."""
        graph = isinstance(x, Tensor) and x.requires_grad
        x = _Edge.apply(x, False) if graph else x
        Marked.inside = True
        try:
            answer = self.marked(x, **more)
        finally:
            Marked.inside = False
        return _Edge.apply(answer, True) if graph else answer


class _Edge(torch.autograd.Function):
    """Nothing, but its backward says whether the model's is beginning or over."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inside: bool) -> Tensor:
        ctx.inside = inside
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        Marked.inside = ctx.inside
        return g, None
