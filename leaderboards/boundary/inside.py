"""What runs in the sandbox: it loads a submission's code and lets it play. The other side believes nothing of it."""

from __future__ import annotations

import importlib.util
import socket
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from advgym import registry
from advgym.errors import BudgetExhausted
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary import mirror
from advgym.leaderboards.boundary.player import RemoteEnv
from advgym.leaderboards.boundary.wire import HARD_CAP, Channel, Gone

SAID = 500  # characters of a message to the author


class Fault(Exception):
    """The submission cannot be run: a reason code and what its author should know."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(what)
        self.code, self.what = code, what[:SAID]


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

    from advgym.task import make_task

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
        from advgym.leaderboards.boundary.guarded import guard

        guard(sock, folder)
        return
    channel = Channel(sock, m.Reply, cap=HARD_CAP)
    try:
        play(channel, folder)
    except Gone:  # every lane is over, or a limit was hit: nobody listens any more
        return
    except Fault as fault:
        _say(channel, m.Failed(fault.code, fault.what))
    else:
        _say(channel, m.Done())


def _say(channel: Channel, message: Any) -> None:
    try:
        channel.send(message)
    except Gone:
        return


def play(channel: Channel, folder: str) -> None:
    """One welcome, one attack."""
    welcome, arrays = channel.recv()
    module = load_module(Path(folder), "agent")
    attack = entry_point(module, "attack", "attack(env, *, seed)")
    check_card(attack, welcome)
    env = RemoteEnv(channel, mirror.unpack(arrays), welcome.proposals)
    try:
        attack(env, seed=welcome.seed, **welcome.settings)
    except BudgetExhausted:
        return
    except Gone:
        raise
    except BaseException as error:
        raise Fault("crashed", described(error, folder)) from None


def load_module(folder: Path, name: str) -> ModuleType:
    """The submission's module, its folder first on the path so that its own files can be imported.

    Raises:
        Fault: with what its author should change.
    """
    path = folder / f"{name}.py"
    if not path.is_file():
        raise Fault("no-entry-point", f"there is no {name}.py in the submission")
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"submission_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise Fault("syntax-error", f"{Path(error.filename or path).name}, line {error.lineno}: {error.msg}") from None
    except ImportError as error:
        raise Fault("import-error", described(error, str(folder))) from None
    except Gone:
        raise
    except BaseException as error:
        raise Fault("crashed", f"on import: {described(error, str(folder))}") from None
    return module


def entry_point(module: ModuleType, name: str, call: str) -> Any:
    """The function of that name."""
    found = getattr(module, name, None)
    if not callable(found):
        raise Fault("no-entry-point", f"{Path(module.__file__ or '').name} has no function {call}")
    return found


def check_card(attack: Any, welcome: m.Welcome) -> None:
    """A registered attack says the same of itself as its card."""
    for entry in registry._agents.values():
        if entry.attack is not attack:
            continue
        said = (sorted(entry.kinds), entry.knowledge, entry.proposals)
        card = (sorted(welcome.kind), welcome.knowledge, welcome.proposals)
        for name, mine, theirs in zip(("kind", "knowledge", "proposals"), said, card, strict=True):
            if mine != theirs:
                raise Fault("card-mismatch", f"{name} is {mine!r} in @register_agent, and {theirs!r} on the card")


def described(error: BaseException, folder: str) -> str:
    """Type, message and place of an error, the place in the submission's own files where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(folder)]
    place = (own or list(frames))[-1] if frames else None
    where = f" ({Path(place.filename).name}, line {place.lineno})" if place else ""
    return f"{type(error).__name__}: {str(error)[:300]}{where}"
