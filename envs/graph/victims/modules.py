"""A PyG-style module as it is asked: in eval mode, nothing cached, in its own dtype; found afterwards as it was."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advgym.core.asking import dtype_of
from advgym.errors import AdvgymError, VictimError

CACHE = "_cached"  # how PyG's attributes that hold what was computed of the first graph begin


def caching(model: Any) -> list[str]:
    """The layers that keep what they computed of the first graph (`cached=True`), as `conv1 (GCNConv)`."""
    if not isinstance(model, nn.Module):
        return []
    return [f"{name or 'the model'} ({type(m).__name__})" for name, m in model.named_modules() if _caches(m)]


def _caches(module: nn.Module) -> bool:
    return getattr(module, "cached", False) is True


@contextmanager
def asked(model: Any) -> Iterator[None]:
    """Within it a module is in eval mode and caches nothing, or it would answer about the first graph for ever."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    training = [m for m in modules if m.training]
    cached = [(m, {k: v for k, v in vars(m).items() if k.startswith(CACHE)}) for m in modules if _caches(m)]
    try:
        for m in training:
            m.training = False
        for m, kept in cached:
            m.cached = False  # type: ignore[assignment]
            vars(m).update(dict.fromkeys(kept))
        yield
    finally:
        for m in training:
            m.training = True
        for m, kept in cached:
            m.cached = True  # type: ignore[assignment]
            vars(m).update(kept)


def call(model: Callable[..., Any], x: Tensor, edges: Tensor, weight: Tensor | None, name: str = "own") -> Tensor:
    """Scores (N, C) of one graph, at least float32.

    Raises:
        VictimError: where the model fails, or answers with anything but one row of scores per node.
    """
    dtype, wanted = dtype_of(model), "(x float (nodes, features), edge_index int64 (2, edges))"
    inputs = x if dtype is None or not x.is_floating_point() else x.to(dtype)
    weights = {} if weight is None else {"edge_weight": weight if dtype is None else weight.to(dtype)}
    try:
        with asked(model):
            scores = model(inputs, edges, **weights)
    except (AdvgymError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise VictimError(
            f"victim {name!r} fails on a graph of {len(x)} nodes with {x.shape[1]} features and {edges.shape[1]} "
            f"directed edges, given as {wanted}: {type(error).__name__}: {error}"
        ) from error
    scores = _tensor(scores)
    if scores is None or scores.dim() != 2 or len(scores) != len(x):
        shape = "something else" if scores is None else tuple(scores.shape)
        raise VictimError(
            f"victim {name!r}: the model answered {shape} to a graph of {len(x)} nodes; want scores (nodes, classes)"
        )
    scores = scores.to(x.device)
    return scores if scores.dtype in (torch.float32, torch.float64) else scores.float()


def _tensor(scores: Any) -> Tensor | None:
    """An answer as a tensor: an array, a list of rows, the `logits` of an output object, or the first of a tuple."""
    scores = getattr(scores, "logits", scores)
    if isinstance(scores, tuple) and scores:
        scores = scores[0]
    if isinstance(scores, Tensor):
        return scores
    try:
        return torch.from_numpy(np.asarray(scores, dtype=np.float32))
    except (TypeError, ValueError):
        return None


def accepts_weights(model: Callable[..., Any]) -> bool:
    """Whether a model can be called with edge_weight=."""
    called = model.forward if isinstance(model, nn.Module) else model
    try:
        parameters = inspect.signature(called).parameters
    except (TypeError, ValueError):
        return False
    return "edge_weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


# -- whether graphs may be asked about together ----------------------------------------------------------------------
PROBES = ((1.0, 0.0), (3.0, 2.0), (0.2, -1.0))  # scale and shift of the features of graphs that can tell
RELATIVE, ABSOLUTE = 1e-4, 1e-5  # of scores, in float32


def agree(a: Tensor, b: Tensor) -> bool:
    """Whether two answers are one but for rounding."""
    a, b = a.detach().double(), b.detach().double()
    wide = float(a.abs().max()) if a.numel() else 0.0
    return bool(((a - b).abs() <= ABSOLUTE + RELATIVE * max(wide, 1e-3)).all())


@torch.no_grad()
def alone_as_together(ask: Callable[[Tensor, Tensor], Tensor], x: Tensor, edges: Tensor) -> bool:
    """Whether graphs stacked block-diagonally answer as each does alone; False where that cannot be told.

    Args:
        ask: scores (N, C) of features (N, F) and edges (2, e).
        x, edges: the clean graph. Its own features may tell nothing (all alike): it is stacked with graphs of random
            features of other means and spreads, in random order, with edges taken and put, some at one hub.
    """
    generator = torch.Generator().manual_seed(len(x))
    graphs = [(x, edges)]
    for scale, shift in PROBES:
        noise = torch.randn(x.shape, generator=generator) * scale + shift
        graphs.append((noise.to(x), _varied(edges, len(x), generator)))
    order = torch.randperm(len(x), generator=generator).to(x.device)
    graphs.append((x[order], _varied(edges, len(x), generator)))
    try:
        alone = [ask(*graph) for graph in graphs]
        together = ask(
            torch.cat([g[0] for g in graphs]), torch.cat([g[1] + i * len(x) for i, g in enumerate(graphs)], 1)
        )
    except AdvgymError:  # a model for so many nodes, or for features of its own kind
        return False
    tells = any(not agree(one, other) for one, other in itertools.pairwise(alone[1:-1]))
    return tells and agree(torch.cat(alone), together)


def _varied(edges: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Both directions of a graph's edges with a third taken, some put at random, and some more at one hub."""
    device, edges = edges.device, edges.cpu()
    pairs = edges[:, edges[0] < edges[1]]
    pairs = pairs[:, torch.rand(pairs.shape[1], generator=generator) < 2 / 3]
    some = torch.randint(size, (2, max(4, size // 8)), generator=generator)
    hub = torch.randint(size, (1,), generator=generator).expand(max(4, size // 4))
    at = torch.randint(size, (len(hub),), generator=generator)
    new = torch.cat([pairs, some, torch.stack([hub, at])], 1).sort(0).values
    new = new[:, new[0] != new[1]].unique(dim=1)
    return torch.cat([new, new.flip(0)], 1).to(device)
