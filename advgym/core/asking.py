"""How a model is asked: in eval mode, on inputs that it may write into, and one input's exception costs that input.

And how its answer is read: the scores in it, whatever form it has.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.batch import take
from advgym.errors import AdvgymError, Unusable, VictimError

PASSING = ("TimeoutError", "ConnectionError", "OutOfMemoryError", "RateLimitError", "APIConnectionError")
_MOODY = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU, nn.RNNBase, nn.MultiheadAttention)


@contextlib.contextmanager
def in_eval(model: Any) -> Iterator[None]:
    """Put a module into eval mode, and leave it as it was found: each of its parts, whatever happens."""
    training = [part for part in _parts(model) if part.training] if isinstance(model, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _parts(model: nn.Module) -> list[nn.Module]:
    """`model.modules()`, without the names: this runs before every answer."""
    found = {id(model): model}
    waiting = [model]
    while waiting:
        for part in waiting.pop()._modules.values():
            if part is not None and id(part) not in found:
                found[id(part)] = part
                waiting.append(part)
    return list(found.values())


def moody(model: Any) -> bool:
    """Whether a module is in training mode and has parts that answer otherwise in it (batch norm, dropout)."""
    return isinstance(model, nn.Module) and any(p.training and isinstance(p, _MOODY) for p in model.modules())


def dtype_of(model: Any) -> torch.dtype | None:
    """The floating dtype of a module's parameters; None without any."""
    if not isinstance(model, nn.Module):
        return None
    return next((p.dtype for p in chain(model.parameters(), model.buffers()) if p.is_floating_point()), None)


class Copies:
    """Whether a model has to be given copies of its inputs: it writes into them, or may do so unseen.

    Tensors of floats reach a module in the dtype of its parameters. What a module writes shows in the tensor's version;
    what a callable does through numpy does not, so a callable always gets copies, unless it has an attribute `pure`.
    """

    def __init__(self) -> None:
        self.writes = self.known = False

    def __call__(self, model: Callable[..., Any], x: Any, **keys: Any) -> Any:
        """The model's answer to x, which stays as it was."""
        if not isinstance(x, Tensor) or getattr(model, "pure", False):
            return model(x, **keys)
        x = x.to(dtype_of(model) or x.dtype) if x.is_floating_point() else x
        given = x if self.known and not self.writes and isinstance(model, nn.Module) else x.clone()
        version = given._version
        answer = model(given, **keys)
        if given is x and given._version != version:
            raise VictimError("the victim writes into its input now and then: let it work on a copy, x = x.clone()")
        if given is not x and not self.writes:
            with torch.no_grad():
                self.writes = given._version != version or not torch.equal(given.detach(), x.detach())
        self.known = True
        return answer


def passing(error: Exception) -> bool:
    """Whether asking again later may help: too many requests, a time-out, memory that another process has."""
    status = getattr(error, "status_code", getattr(getattr(error, "response", None), "status_code", None))
    names = {kind.__name__ for kind in type(error).__mro__}
    return status in (408, 425, 429, 500, 502, 503, 504) or bool(names & set(PASSING))


def pieces(
    answer: Callable[[Any, Tensor | None], Tensor], x: Any, keys: Tensor | None, *, retries: int = 0, wait: float = 1.0
) -> list[Tensor | Exception]:
    """The answers to x in order, in pieces: scores of some rows, or what the model raised on a single one of them.

    A passing error is tried again, `retries` times, after `wait`, 2 `wait`, 4 `wait` ... seconds. Then the rows are
    halved: what ran out of memory fits, and the input that raises is left alone. Rows that are one answer (`together`,
    as the members of one graph) stay together.
    """
    for attempt in range(retries + 1):
        try:
            return [answer(x, keys)]
        except (AdvgymError, Unusable):
            raise
        except Exception as error:
            found = error
            if not passing(error):
                break
            if attempt < retries:
                time.sleep(wait * 2**attempt)
    unit = getattr(x, "together", 1)
    if len(x) == unit:
        return [found] * unit
    rows = torch.arange(len(x), device=getattr(x, "device", None)).view(-1, unit)
    half = [part.flatten() for part in rows.tensor_split(2)]
    parts = [pieces(answer, take(x, i), None if keys is None else keys[i], retries=retries, wait=wait) for i in half]
    return [*parts[0], *parts[1]]


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
