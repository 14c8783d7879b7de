"""What runs in the sandbox: it loads a submission's code and lets it play. The other side believes nothing of it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advgym import registry
from advgym.errors import BudgetExhausted
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary import mirror
from advgym.leaderboards.boundary.player import RemoteEnv
from advgym.leaderboards.boundary.submission import Failure, crashed, entry_point, load_module
from advgym.leaderboards.boundary.wire import HARD_CAP, Channel, Gone


def prepare(modules: list[str], tasks: list[tuple[str, dict[str, Any]]], env: dict[str, str]) -> None:
    """Import and load, before children are forked, what every one of them would import and load.

    Args:
        modules: of the batches that an attack is shown.
        tasks: (name, options) of those that a defense guards; their data and victims stay in memory.
        env: where public data lies.
    """
    import importlib
    import os

    import torch

    from advgym.core.task import make_task

    torch.set_num_threads(1)
    os.environ.update(env)
    for name in modules:
        importlib.import_module(name)
    for task, options in tasks:
        made = make_task(task, **options)
        made.samples(next(iter(made.sizes)), [0])


def enter(sock: socket.socket, folder: str, role: str) -> None:
    """Run one shard of the submission in `folder` over `sock`; `role` is "agent" or "defense"."""
    import torch

    torch.set_num_threads(1)
    if role == "defense":
        # The same answer in batches of other sizes, on a GPU too: TF32 rounds to three digits.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        from advgym.leaderboards.boundary.guarded import guard

        guard(sock, folder)
        return
    channel = Channel(sock, m.Reply, cap=HARD_CAP)
    try:
        last = play(channel, folder)
    except Gone:  # every lane is over, or a limit was hit: nobody listens any more
        return
    except Failure as failure:
        _say(channel, failure.message)
    else:
        _say(channel, m.Done(), last)


def _say(channel: Channel, message: Any, arrays: Sequence[np.ndarray] = ()) -> None:
    try:
        channel.send(message, arrays)
    except Gone:
        return


def play(channel: Channel, folder: str) -> list[np.ndarray]:
    """One welcome, one attack; what it returned, where that counts.

    The code is loaded before any sample comes: what fails until then tells nothing.
    """
    module = load_module(Path(folder), "agent")
    attack = entry_point(module, "attack", "attack(env, *, seed)")
    channel.send(loaded(attack))
    welcome, arrays = channel.recv()
    env = RemoteEnv(channel, mirror.unpack(arrays), welcome.proposals)
    try:
        return env.returned(attack(env, seed=welcome.seed, **welcome.settings))
    except BudgetExhausted:
        return []
    except Gone:
        raise
    except BaseException as error:
        raise crashed(error, folder) from None


def loaded(attack: Any) -> m.Loaded:
    """What a registered attack says of itself; its card must say the same."""
    entry = registry.entry_of(attack)
    return m.Loaded() if entry is None else m.Loaded(True, sorted(entry.kinds), entry.knowledge, entry.proposals)
