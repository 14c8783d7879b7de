"""What runs in the sandbox: it loads a submission's code and lets it play. The other side believes nothing of it."""

from __future__ import annotations

import importlib.util
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from advgym import registry
from advgym.errors import BudgetExhausted
from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary import mirror
from advgym.leaderboards.boundary.player import RemoteEnv
from advgym.leaderboards.boundary.wire import HARD_CAP, Channel, Gone

SAID = 500  # characters of a message to the author


class Failure(Exception):
    """The submission cannot be run; `message` says why to the other side."""

    def __init__(self, code: str, text: str = "", *, kind: str = "", file: str = "", line: int = 0) -> None:
        super().__init__(f"{code}: {text}")
        self.message = m.Failed(code, kind[:SAID], file, line, text[:SAID])


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


def load_module(folder: Path, name: str) -> ModuleType:
    """The submission's module, its folder first on the path so that its own files can be imported.

    Raises:
        Failure: with what its author should change.
    """
    path = folder / f"{name}.py"
    if not path.is_file():
        raise Failure("no-entry-point", f"there is no {name}.py in the submission")
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"submission_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        file = Path(error.filename or path).name
        raise Failure("syntax-error", error.msg, file=file, line=error.lineno or 0) from None
    except ImportError as error:
        raise crashed(error, str(folder), "import-error") from None
    except Gone:
        raise
    except BaseException as error:
        raise crashed(error, str(folder), before="on import: ") from None
    return module


def entry_point(module: ModuleType, name: str, call: str) -> Any:
    """The function of that name."""
    found = getattr(module, name, None)
    if not callable(found):
        raise Failure("no-entry-point", f"{Path(module.__file__ or '').name} has no function {call}")
    return found


def loaded(attack: Any) -> m.Loaded:
    """What a registered attack says of itself; its card must say the same."""
    entry = registry.entry_of(attack)
    return m.Loaded() if entry is None else m.Loaded(True, sorted(entry.kinds), entry.knowledge, entry.proposals)


def crashed(error: BaseException, folder: str, code: str = "crashed", before: str = "") -> Failure:
    """Class, message and place of an error, the place in the submission's own files where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(folder)]
    place = (own or list(frames))[-1] if frames else None
    file, line = (Path(place.filename).name, place.lineno or 0) if place else ("", 0)
    return Failure(code, before + str(error)[:300], kind=type(error).__name__, file=file, line=line)
