"""A defense's side: the submission wraps the victim in here, and answers what the evaluator asks of it."""

from __future__ import annotations

import copy
import os
import socket
from collections import OrderedDict
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.core.cached import asked_anew
from advgym.core.victim import DRAWS
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary import mirror
from advgym.leaderboards.boundary.submission import Failure, crashed, entry_point, load_module
from advgym.leaderboards.boundary.wire import HARD_CAP, Channel, Gone

GRAPHS = 16


def guard(sock: socket.socket, folder: str) -> None:
    """Serve the defended victim until the evaluator closes."""
    channel = Channel(sock, m.Order, cap=HARD_CAP)
    try:
        _serve(channel, folder)
    except Gone:
        return
    except Failure as failure:
        try:
            channel.send(failure.message)
        except Gone:
            return


def _serve(channel: Channel, folder: str) -> None:
    defend = entry_point(load_module(Path(folder), "defense"), "defend", "defend(victim, task)")
    channel.send(m.Loaded())
    order, arrays = channel.recv()
    victim, device = enlist(order, mirror.unpack(arrays), defend, folder), order.device
    most = GRAPHS * (DRAWS if victim.keyed else 1)  # an answer of a randomised defense is the mean of so many
    channel.send(m.Ready(victim.access, victim.keyed, victim.risk is not None, float(victim.threshold)))
    graphs: OrderedDict[int, tuple[list[Tensor], Tensor]] = OrderedDict()
    kept: dict[int, Any] = {}
    steps = 0
    while True:
        order, arrays = channel.recv()
        try:
            if isinstance(order, m.Pull):
                leaves, scores = graphs[order.step]
                cotangent = torch.from_numpy(arrays[0]).to(device)
                grads = torch.autograd.grad(scores, leaves, cotangent, retain_graph=True, allow_unused=True)
                found = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]
                channel.send(m.Pulled(), [_array(g) for g in found])
                continue
            x, leaves = with_leaves(mirror.unpack(arrays[:3], kept, device), order.leaves)
            keys = torch.from_numpy(arrays[3]).to(device) if order.keyed else None
            with torch.set_grad_enabled(bool(leaves)), asked_anew():
                scores = victim(x, keys)
            steps += 1
            if leaves:
                graphs[steps] = (leaves, scores)
                while len(graphs) > most:
                    graphs.popitem(last=False)
            out = [_array(scores)]
            if victim.risk is not None:
                with torch.no_grad():
                    out.append(_array(torch.as_tensor(victim.risk(x))))
            channel.send(m.Scores(steps if leaves else -1), out)
        except Gone:
            raise
        except BaseException as error:
            raise crashed(error, folder) from None


def enlist(order: Any, weights: dict[str, Tensor], defend: Any, folder: str) -> Any:
    """The submission's defense around the victim with these weights."""
    from advgym.core.task import make_task
    from advgym.core.victim import as_victim

    os.environ.update(order.env)
    task = make_task(order.task, **order.options)
    if task.victim.module is not None and weights:
        victim = copy.copy(task.victim)  # the loaded one is shared by every task of this process
        victim.model = copy.deepcopy(task.victim.module)
        victim.model.load_state_dict(weights)
        task = replace(task, victim=victim)
    task = replace(task, victim=task.victim.on(order.device))
    try:
        defended = copy.copy(as_victim(defend(task.victim, task, **order.settings)).on(order.device))
        defended.raises = True
        return defended
    except BaseException as error:
        raise crashed(error, folder) from None


def with_leaves(x: Any, names: list[str]) -> tuple[Any, list[Tensor]]:
    """The inputs with the named float tensors requiring grad; "" names a plain tensor itself."""
    if not names:
        return x, []
    if isinstance(x, Tensor):
        x = x.requires_grad_()
        return x, [x]
    leaves = [getattr(x, name).requires_grad_() for name in names]
    if is_dataclass(x) and not isinstance(x, type):
        return replace(x, **dict(zip(names, leaves, strict=True))), leaves
    return x, leaves


def _array(value: Tensor) -> np.ndarray:
    return value.detach().to(torch.float32).cpu().contiguous().numpy()
