"""What a costly model answered, kept: each distinct input is asked once, in memory or in a file under a name.

Answers are kept for whole rows of strings and of tensors, and of inputs that say what they are (`contents`), by the
SHA-256 of their content; a call of several tensors (a graph's x, edge_index, edge_weight) is one input, whose answer is
kept whole. Whatever else is asked anew. A file belongs to the name and version that the user gives: what it holds is
what the model said under that name, so a changed model wants another version.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advgym.core.asking import scores_in
from advgym.core.batch import take
from advgym.core.tally import Tally
from advgym.errors import DataError, VictimError
from advgym.lib.content import tensor_bytes
from advgym.lib.weights import cache_dir

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9._-]+")
_anew: ContextVar[bool] = ContextVar("advgym_asked_anew", default=False)
Answer = Tensor | str


@contextmanager
def asked_anew() -> Iterator[None]:
    """Within it no kept answer is used, and none is kept: second answers, `verify`, boards."""
    token = _anew.set(True)
    try:
        yield
    finally:
        _anew.reset(token)


def anew() -> bool:
    """Whether no kept answer may be used here (`asked_anew`)."""
    return _anew.get()


def open_store(cache: bool | str) -> Store | None:
    """The store of `Victim(cache=)`: None for False, one in memory for True, a file for "name@version".

    Raises:
        ValueError: for another value.
    """
    if cache is False:
        return None
    if cache is True:
        return Store()
    if not isinstance(cache, str) or not NAME.fullmatch(cache):
        raise ValueError(f"cache is True (in memory) or 'name@version' (a file: 'my-api@2026-03'), not {cache!r}")
    return Store(cache_dir() / "answers" / f"{cache}.sqlite")


class Store:
    """Answers by the digest of their input; with a path, in a file of SQLite as well."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.answers: dict[bytes, Answer] = {}

    def _open(self) -> sqlite3.Connection:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(self.path, timeout=60)
        base.execute("CREATE TABLE IF NOT EXISTS answers (input BLOB PRIMARY KEY, kind TEXT, value BLOB)")
        return base

    def find(self, keys: list[bytes]) -> dict[bytes, Answer]:
        """Those of the answers that are known."""
        missing = [k for k in dict.fromkeys(keys) if k not in self.answers]
        if self.path is not None and missing:
            try:
                with closing(self._open()) as base:
                    for key in missing:
                        row = base.execute("SELECT kind, value FROM answers WHERE input = ?", (key,)).fetchone()
                        if row is not None:
                            self.answers[key] = _decoded(*row)
            except (sqlite3.Error, OSError, ValueError, TypeError, KeyError) as error:
                raise DataError(f"{self.path} holds no answers that can be read: {error}; delete it") from None
        return {k: self.answers[k] for k in keys if k in self.answers}

    def keep(self, found: dict[bytes, Answer]) -> None:
        """Enter new answers."""
        self.answers.update(found)
        if self.path is None:
            return
        rows = [(key, *_encoded(value)) for key, value in found.items()]
        try:
            with closing(self._open()) as base, base:
                base.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"cannot keep answers in {self.path}: {error}") from None


class Remembering:
    """A callable of one batch of inputs, or of one graph's tensors, that asks `model` for what it has not answered yet.

    Attributes of the model are its own, and so is its signature.
    """

    def __init__(self, model: Callable[..., Any], store: Store, tally: Tally) -> None:
        self.model, self.store, self.tally = model, store, tally
        self.__wrapped__ = model

    def __getattr__(self, name: str) -> Any:
        if name in ("model", "store", "tally", "__wrapped__"):
            raise AttributeError(name)
        return getattr(self.model, name)

    def __call__(self, *inputs: Any, **more: Any) -> Any:
        fresh = anew() or (torch.is_grad_enabled() and any(map(wants_gradient, (*inputs, *more.values()))))
        if len(inputs) > 1 or more:
            return self._whole(inputs, more, None if fresh else content(inputs, more))
        keys = None if fresh else contents(inputs[0])
        if keys is None:
            return self.model(*inputs, **more)  # counted by whoever calls
        x = inputs[0]
        known = self.store.find(keys)
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in known}
        ask = sorted(first.values())
        self.tally.add(len(ask))
        if ask:
            part = x if len(ask) == len(keys) else take(x, torch.tensor(ask, device=getattr(x, "device", None)))
            new = dict(zip((keys[i] for i in ask), rows_of(self.model(part), len(ask)), strict=True))
            self.store.keep(new)
            known |= new
        answers = [known[key] for key in keys]
        if any(isinstance(a, str) for a in answers):
            return answers
        device = x.device if isinstance(x, Tensor) else "cpu"
        return torch.stack([a for a in answers if isinstance(a, Tensor)]).to(device)

    def _whole(self, inputs: tuple[Any, ...], more: dict[str, Any], key: bytes | None) -> Any:
        """The answer to a call of several tensors, by its key: the scores of the first one's rows."""
        answer = None if key is None else self.store.find([key]).get(key)
        self.tally.add(int(answer is None))  # a graph, for whichever of its nodes
        if key is None:
            return self.model(*inputs, **more)
        if answer is None:
            answer = scores_of(self.model(*inputs, **more), len(inputs[0])).detach().cpu().clone()
            self.store.keep({key: answer})
        return answer.to(inputs[0].device) if isinstance(answer, Tensor) else answer


def wants_gradient(x: Any) -> bool:
    """Whether an answer to these inputs must be differentiable in them."""
    values = [x] if isinstance(x, Tensor) else list(getattr(x, "__dict__", {}).values())
    return any(isinstance(v, Tensor) and v.requires_grad for v in values)


def contents(x: Any) -> list[bytes] | None:
    """The digest of each row: of a list of strings, a tensor, an array, or inputs with `contents()`; else None."""
    if all_strings(x):
        rows = [b"text " + row.encode("utf-8", "surrogatepass") for row in x]
    elif isinstance(x, (list, tuple)) and all(isinstance(r, (list, tuple)) and all_strings(r) for r in x):
        rows = [b"texts " + json.dumps(row).encode() for row in x]  # pairs of sentences
    elif isinstance(x, np.ndarray) and x.dtype != object and x.ndim:
        return contents(torch.from_numpy(np.ascontiguousarray(x)))
    elif isinstance(x, Tensor) and x.dim() and x.layout == torch.strided:
        head = f"{x.dtype} {tuple(x.shape[1:])} ".encode()
        data = x.detach().cpu()
        rows = [head + tensor_bytes(row) for row in data]
    else:
        said = x.contents() if hasattr(x, "contents") else None
        if said is None:
            return None
        rows = said
    return [hashlib.sha256(row).digest() for row in rows]


def content(inputs: tuple[Any, ...], more: Mapping[str, Any]) -> bytes | None:
    """The digest of all tensors of a call together; None where something is no dense tensor."""
    named = [*((str(i), v) for i, v in enumerate(inputs)), *sorted(more.items())]
    if not all(isinstance(v, Tensor) and v.layout == torch.strided and v.dim() for _, v in named):
        return None
    found = hashlib.sha256(b"call ")
    for name, value in named:
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(tensor_bytes(value.detach().cpu()))
    return found.digest()


def all_strings(x: Any) -> bool:
    """Whether x is a list of strings."""
    return isinstance(x, (list, tuple)) and all(isinstance(row, str) for row in x)


def rows_of(answer: Any, n: int) -> list[Answer]:
    """One answer per row: tensors, or strings of a recogniser or of named labels.

    Raises:
        VictimError: where the model's answer is neither.
    """
    answer = scores_in(answer, n)
    if all_strings(answer) and len(answer) == n:
        return list(answer)
    if isinstance(answer, np.ndarray) and answer.dtype.kind in "US" and answer.shape == (n,):
        return [str(a) for a in answer]
    return list(scores_of(answer, n).detach().cpu().clone())


def scores_of(answer: Any, n: int) -> Tensor:
    """The n rows of scores in an answer.

    Raises:
        VictimError: where there are none.
    """
    answer = scores_in(answer, n)
    try:
        found = answer if isinstance(answer, Tensor) else torch.as_tensor(np.asarray(answer))
    except (TypeError, ValueError, RuntimeError) as error:
        raise VictimError(f"cache= keeps scores, labels and strings; the model answered none: {error}") from None
    if not found.dim() or len(found) != n:
        raise VictimError(f"the model answered {tuple(found.shape)} to {n} inputs; want one row of scores per input")
    return found


def _encoded(value: Answer) -> tuple[str, bytes]:
    if isinstance(value, str):
        return "str", value.encode("utf-8", "surrogatepass")
    return json.dumps([str(value.dtype).removeprefix("torch."), list(value.shape)]), tensor_bytes(value)


def _decoded(kind: str, value: bytes) -> Answer:
    if kind == "str":
        return value.decode("utf-8", "surrogatepass")
    name, shape = json.loads(kind)
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name} is no type of numbers")
    return torch.frombuffer(bytearray(value), dtype=dtype).view(shape)


def remembering(model: Any, store: Store | None, tally: Tally, *, able: bool) -> Any:
    """The model with a memory, where there is a store.

    Raises:
        ValueError: for a model whose answers cannot be kept.
    """
    if store is None:
        return model
    if not able:
        raise ValueError("cache= keeps what is answered again alike: this victim draws at random, or retrains")
    if isinstance(model, nn.Module) or not callable(model):
        raise ValueError(
            f"cache= is for a callable whose answers cost something; {type(model).__name__} is a model at hand, with "
            "gradients and weights that may change: pass a function that calls it, such as lambda x: model(x)"
        )
    return Remembering(model, store, tally)
