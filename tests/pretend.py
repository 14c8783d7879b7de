"""A graphics card that is not there: tests of where tensors lie, on machines without one.

`with card() as device` gives `cuda:0`. What is made there or moved there says so, keeps its values in ordinary memory,
and is refused where a real card refuses it: beside CPU tensors with dimensions, as an index into a CPU tensor, by
`.numpy()`, with a generator of the other side. What a real card lets pass (CPU scalars in arithmetic, CPU indices,
copies both ways) passes. Arithmetic is the CPU's, so whatever does not depend on the device gives the CPU's numbers to
the bit. Draws are not: a real card has streams of its own, so numbers drawn there are other ones (`card(draws="cpu")`
for what may draw there).

It is no emulation: nothing is timed, no kernel of CUDA, cuDNN or NCCL is seen, no memory runs out, rounding and the
order of atomic sums are the CPU's, and what C++ does below PyTorch's dispatcher is not watched. Modes belong to a
thread: another one enters `joined()`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

HERE, THERE = torch.device("cpu"), torch.device("cuda:0")
BELOW = torch.device("meta")  # what C++ believes, so that it looks for no driver and computes nothing by itself
SALT = 0x5DEECE66D  # between the seeds of the two sides
AT = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
PACKED = {"aten::_pack_padded_sequence", "aten::_pad_packed_sequence"}  # lengths are taken and given on the CPU
COPIES = {"aten::copy_", "aten::_to_copy"}
# A CPU scalar is taken in elementwise arithmetic alone; these want every operand beside them.
TOGETHER = {
    "aten::cat", "aten::stack", "aten::index_select", "aten::gather", "aten::scatter", "aten::scatter_add",
    "aten::embedding", "aten::index_add",
    "aten::index_add_", "aten::scatter_", "aten::scatter_add_", "aten::searchsorted",
}  # fmt: skip


class Far(torch.Tensor):
    """A tensor on the card; `near` is where its values are."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Far:
        strided = near.layout is torch.strided
        far = torch.Tensor._make_wrapper_subclass(
            cls, near.shape, near.stride() if strided else torch.empty(near.shape, device=BELOW).stride(),
            near.storage_offset() if strided else 0, dtype=near.dtype, device=BELOW,
            dispatch_device=True, dispatch_layout=not strided,
        )  # fmt: skip
        far.near = near
        return far

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})

    device = property(lambda self: THERE)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)
    layout = property(lambda self: self.near.layout)
    is_sparse = property(lambda self: self.near.is_sparse)
    is_sparse_csr = property(lambda self: self.near.is_sparse_csr)

    def get_device(self) -> int:
        return THERE.index

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return self.near.detach().numpy(force=True)

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Far:
        if id(self) not in memo:
            if not self.is_leaf:
                raise RuntimeError(
                    "Only Tensors created explicitly by the user support the deepcopy protocol at the moment."
                )
            made = Far(self.near.detach().clone())
            if isinstance(self, torch.nn.Parameter):
                made = torch.nn.Parameter(made, self.requires_grad)
            made.requires_grad_(self.requires_grad)
            made.grad = copy.deepcopy(self.grad, memo)
            memo[id(self)] = made
        return memo[id(self)]

    def data_ptr(self) -> int:
        return self.near.data_ptr()

    def tolist(self) -> Any:
        return self.near.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Far({self.near!r})"


_Generator = torch.Generator


class Stream(torch.Generator):
    """`torch.Generator` with a side: on the card a seed gives other numbers than on the CPU."""

    def __new__(cls, device: Any = "cpu") -> Stream:
        made = super().__new__(cls)
        made.there = _far_device(device)
        if made.there:
            made.manual_seed(torch.initial_seed())
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return THERE if self.there else HERE

    def manual_seed(self, seed: int) -> Stream:
        super().manual_seed(seed ^ _salt() if self.there else seed)
        return self


class _Card:
    """What the card itself remembers: its default stream."""

    def __init__(self, salt: int) -> None:
        self.salt = salt
        self.state: torch.Tensor | None = None

    def seed(self, seed: int) -> None:
        self.state = _Generator().manual_seed(seed ^ self.salt).get_state() if self.salt else None

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draws without a generator come from the card's stream, and leave the CPU's where it was."""
        if not self.salt:
            yield
            return
        with torch._C._DisableTorchDispatch():
            kept = torch.default_generator.get_state()
            torch.default_generator.set_state(self.state)
            yield
            self.state = torch.default_generator.get_state()
            torch.default_generator.set_state(kept)


_cards: list[_Card] = []


def _salt() -> int:
    return _cards[-1].salt if _cards else SALT


def _far_device(device: Any) -> bool:
    if device is None or isinstance(device, int):
        return device is not None
    return torch.device(device).type in (THERE.type, BELOW.type)


def _refuse(func: Any, why: str) -> RuntimeError:
    return RuntimeError(f"Expected all tensors to be on the same device, but {why} ({func})")


def _check_tensors(func: Any, args: Any, kwargs: Any, far: list[Far], near: list[torch.Tensor]) -> None:
    """Refuse what a card refuses, of a call with tensors of both sides."""
    name = func._schema.name
    if any(t.device.type == BELOW.type for t in near):
        raise RuntimeError(
            f"{func} met a tensor whose values were lost below the dispatcher: teach tests/pretend.py about it"
        )
    if not far or not near or name in COPIES:
        return
    if name in AT:
        if not isinstance(args[0], Far):
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor (cpu) ({func})"
            )
        near = [t for t in args[2:3] if not isinstance(t, Far)]  # the indices may lie on the CPU, the values may not
    if name in PACKED:
        near = []
    if any(t.dim() for t in near) or (near and name in TOGETHER):
        raise _refuse(func, "found cuda:0 and cpu")
    for given, told in zip(args, func._schema.arguments, strict=False):
        written = told.alias_info is not None and told.alias_info.is_write
        if written and isinstance(given, torch.Tensor) and not isinstance(given, Far):
            raise _refuse(func, "a CPU tensor would be written by the card")


def _check_lengths(func: Any, args: Any) -> None:
    if func._schema.name in PACKED and isinstance(args[1], Far):
        raise RuntimeError("'lengths' argument should be a 1D CPU int64 tensor, but got 1D cuda:0 Long tensor")


def _check_generator(func: Any, args: Any, kwargs: Any) -> None:
    """A generator has to be of the side where the numbers are to lie."""
    for given in (*args, *kwargs.values()):
        if isinstance(given, _Generator):
            far = any(isinstance(t, Far) for t in args)
            there = far if kwargs.get("device") is None else _far_device(kwargs["device"])
            if (given.device.type == THERE.type) != there:
                want, got = ("cuda", "cpu") if there else ("cpu", "cuda")
                raise RuntimeError(f"Expected a '{want}' device type for generator but found '{got}' ({func})")


def _check_cotangents(outputs: Any, grad_outputs: Any = None) -> None:
    """The engine forgives subclasses gradients of another device than their tensors'."""
    for out, grad in zip(tree_leaves(outputs), tree_leaves(grad_outputs), strict=False):
        if isinstance(grad, torch.Tensor) and grad.dim() and grad.device != out.device:
            raise RuntimeError(f"invalid gradient: expected device {out.device} but got {grad.device}")


def _near(value: Any) -> Any:
    if isinstance(value, Far):
        return value.near
    return HERE if isinstance(value, torch.device) and _far_device(value) else value


def _carry_out(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation of the dispatcher: checked, done in ordinary memory, its results put where they belong."""
    if func in (torch.ops.prim.device.default, torch.ops.prim.layout.default):  # C++ asks about a wrapper
        return BELOW if func is torch.ops.prim.device.default else args[0].near.layout
    tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
    far = [t for t in tensors if isinstance(t, Far)]
    near = [t for t in tensors if not isinstance(t, Far)]
    _check_lengths(func, args)
    _check_tensors(func, args, kwargs, far, near)
    there = bool(far) if kwargs.get("device") is None else _far_device(kwargs["device"])
    brought = any(isinstance(v, _Generator) for v in (*args, *kwargs.values()))
    own = there and not brought and torch.Tag.nondeterministic_seeded in func.tags
    given, named = tree_map(_near, args), tree_map(_near, kwargs)
    named.update({k: False for k in ("pin_memory", "non_blocking") if k in named})
    with torch._C._DisableTorchDispatch(), _cards[-1].drawing() if own and _cards else nullcontext():
        out = func(*given, **named)
        if torch.Tag.inplace_view in func.tags and isinstance(args[0], Far):
            func(*args, **kwargs)  # the wrapper's shape and strides follow
    same = {id(t.near): t for t in far} | {id(t): t for t in near}  # what was changed in place is what was given

    def placed(t: Any) -> Any:
        if not isinstance(t, torch.Tensor):
            return t
        return same.get(id(t)) if id(t) in same else Far(t) if there else t

    return (placed(out[0]), out[1]) if func._schema.name in PACKED else tree_map(placed, out)


class _Dispatch(TorchDispatchMode):
    """Factories and copies to the card, which no far tensor takes part in."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})


def _values(data: Any) -> Any:
    """What `torch.tensor` is given, without tensors of the card inside of lists: a card's are read one by one."""
    if isinstance(data, list | tuple):
        return [_values(v) for v in data]
    return data.near.clone() if isinstance(data, Far) else data


def _make(func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """`torch.tensor`, `as_tensor` and `asarray` work below the dispatcher: done on the CPU, then moved."""
    data, device = (args[0] if args else kwargs.pop("data")), kwargs.pop("device", None)
    if isinstance(data, torch.Tensor) and func is not torch.tensor:
        wanted = {
            "device": data.device if device is None else torch.device(device),
            "dtype": kwargs.get("dtype") or data.dtype,
        }
        return data if _stays((data,), wanted) else data.to(**wanted)
    if device is None and isinstance(data, Far):
        device = THERE
    made = func(_values(data), *args[1:], **{k: v for k, v in kwargs.items() if k != "requires_grad"})
    made = made if device is None else made.to(device)
    return made.requires_grad_() if kwargs.get("requires_grad") else made


def _index(at: Any) -> Any:
    """Lists and arrays of an index as CPU tensors; C++ would make them where it believes the indexed one to be."""
    if isinstance(at, tuple):
        return tuple(_index(one) for one in at)
    return torch.tensor(_values(at)) if isinstance(at, list) or type(at).__module__ == "numpy" else at


class _Functions(TorchFunctionMode):
    """What is decided above the dispatcher, or done below it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is not None and _far_device(kwargs["device"]):
            kwargs["device"] = THERE
        _check_generator(func, args, kwargs)
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            return _make(func, args, kwargs)
        if func is torch.Tensor.new_tensor:
            like = {"dtype": args[0].dtype, "device": args[0].device}
            return _make(torch.tensor, args[1:], {**like, **{k: v for k, v in kwargs.items() if v is not None}})
        if func is torch.Tensor.cuda:
            func, args, kwargs = torch.Tensor.to, (args[0], THERE), {}
        if func is torch.Tensor.to:
            args = (args[0], *(THERE if _named(a) else a for a in args[1:]))
            if _stays(args, kwargs):
                return args[0]
            if len(args) > 1 and isinstance(args[1], Far):
                args = (args[0], THERE, args[1].dtype, *args[2:])
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], Far):
            args = (args[0], _index(args[1]), *args[2:])
        if func is torch.sparse.mm and isinstance(args[0], Far) and args[0].layout is not torch.strided:
            a, b = args  # C++ asks keys that a wrapper has not, whether it is sparse
            return torch.ops.aten._sparse_addmm(
                torch.zeros(len(a), b.shape[1], dtype=b.dtype, device=THERE), a, b, beta=0
            )
        if func is torch.autograd.grad:
            _check_cotangents(*args[:3:2], **{k: kwargs[k] for k in ("outputs", "grad_outputs") if k in kwargs})
        if func is torch.Tensor.data.__set__ and isinstance(args[0], Far):
            args[0].near = args[1].near
        return func(*args, **kwargs)


def _named(value: Any) -> bool:
    return isinstance(value, str | torch.device) and torch.device(value).type == THERE.type


def _stays(args: Any, kwargs: Any) -> bool:
    """Whether `x.to(...)` is x itself, as it is on any device."""
    x, more = args[0], [*args[1:], kwargs.get("device"), kwargs.get("dtype")]
    if not isinstance(x, Far) or kwargs.get("copy") or kwargs.get("memory_format"):
        return False
    devices = [v.device if isinstance(v, torch.Tensor) else torch.device(v) for v in more
               if isinstance(v, str | torch.device | torch.Tensor)]  # fmt: skip
    types = [v.dtype if isinstance(v, torch.Tensor) else v for v in more if isinstance(v, torch.dtype | torch.Tensor)]
    return all(d.type == THERE.type for d in devices) and all(t is x.dtype for t in types) and bool(devices or types)


@contextmanager
def card(draws: str = "own") -> Iterator[torch.device]:
    """One card, `cuda:0`.

    Args:
        draws: "own": what is drawn on the card is no number of the CPU's. "cpu": it is the CPU's, for code that is
            allowed to draw there and is compared all the same.
    """
    assert draws in ("own", "cpu"), draws
    mine = _Card(SALT if draws == "own" else 0)
    mine.seed(torch.initial_seed())
    answers = {
        "device_count": lambda: 1, "is_available": lambda: True, "current_device": lambda: 0,
        "get_device_name": lambda *_: "pretended", "get_device_capability": lambda *_: (9, 0),
        "_lazy_init": lambda: None, "synchronize": lambda *_: None,
        "manual_seed_all": mine.seed, "manual_seed": mine.seed, "is_current_stream_capturing": lambda: False,
        "get_rng_state": lambda *_: torch.get_rng_state() if mine.state is None else mine.state.clone(),
        "set_rng_state": lambda state, *_: setattr(mine, "state", None if mine.state is None else state.clone()),
    }  # fmt: skip
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch(f"torch.cuda.{name}", answer))
        stack.enter_context(mock.patch("torch.Generator", Stream))
        stack.enter_context(mock.patch("torch.backends.cudnn.is_acceptable", lambda _: False))
        _cards.append(mine)
        stack.callback(_cards.remove, mine)
        stack.enter_context(joined())
        yield THERE


@contextmanager
def joined() -> Iterator[torch.device]:
    """The card that is there, in another thread."""
    with _Dispatch(), _Functions():
        yield THERE
