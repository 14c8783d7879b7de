"""What a command says of itself while it runs: a first line before PyTorch is imported, then never silent for long.

One rule for every command. In a terminal a progress bar moves, and between bars there is a line every few seconds;
where there is no terminal, lines alone, on stderr. And what an interrupted command has kept, looked up when it is
interrupted.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.progress import Progress

QUIET = 1.6  # seconds of silence before the first line; looked at every STEP
LATER = 5.0  # between lines after it,
LONG, RARELY = 60.0, 30.0  # and of a command that runs for more than a minute
STEP = 0.2

_NOTHING = "nothing was kept"
_state: dict[str, Any] = {"spoke": 0.0, "bar": None, "stage": "", "kept": None, "say": str}


def spoke() -> None:
    """Something was written: the silence starts anew."""
    _state["spoke"] = time.monotonic()


class Bar(Progress):
    """A progress bar that tells the pulse where it is."""

    def __enter__(self) -> Bar:
        super().__enter__()
        _state["bar"] = self
        return self

    def __exit__(self, *error: Any) -> None:
        _state["bar"] = None
        super().__exit__(*error)

    def words(self) -> str:
        """What it would show, as plain text."""
        shown = []
        for task in self.tasks:
            note = str(task.fields.get("note", ""))
            of = "" if task.total is None else f"{task.completed:g} of {task.total:g}"
            shown.append(f"{task.description}: " + ", ".join(part for part in (of, note) if part))
        return "; ".join(shown)


class Stages(logging.Handler):
    """The last notice is what a command is at."""

    def emit(self, record: logging.LogRecord) -> None:
        _state["stage"] = record.getMessage()


class _BeforeTorch:
    """Says a line when PyTorch is about to be imported, which takes seconds; it finds nothing."""

    def __init__(self, command: str) -> None:
        self.command, self.said = command, False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torch" and not self.said:  # removing itself here would hide the next finder from this import
            self.said = True
            _say(f"{self.command}: loading PyTorch")


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a stream that was closed
        _state["say"](text)


def _words(command: str) -> str:
    """What it is at, in few words."""
    bar = _state["bar"]
    if bar is not None and bar.tasks:
        return str(bar.words())
    torch = sys.modules.get("torch")
    loading = torch is not None and not hasattr(torch, "compile")
    return f"{command}: {'loading PyTorch' if loading else _state['stage'] or 'at work'}"


def _beat(command: str, done: threading.Event) -> None:
    started, wait = time.monotonic(), QUIET
    while not done.wait(STEP):
        bar, now = _state["bar"], time.monotonic()
        if bar is not None and not bar.disable:  # it draws itself
            spoke()
        elif now - _state["spoke"] >= wait:
            _say(f"{_words(command)} ({now - started:.0f} s)")
            wait = LATER if now - started < LONG else RARELY
        elif now - _state["spoke"] < STEP:
            wait = max(wait, LATER) if bar is not None else QUIET


@contextlib.contextmanager
def watch(args: list[str], say: Callable[[str], object]) -> Iterator[None]:
    """While a command runs: its first line, and one whenever it was silent. A server speaks for itself.

    Args:
        args: the command's.
        say: writes a line, and tells `spoke`.
    """
    command = next((arg for arg in args if not arg.startswith("-")), "")
    _state.update(stage="", kept=None, say=say)
    spoke()
    if command in ("", "serve"):
        yield
        return
    done, stages = threading.Event(), Stages()
    before = _BeforeTorch(command)
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, before)  # type: ignore[arg-type]
    logging.getLogger("advgym").addHandler(stages)
    beat = threading.Thread(target=_beat, args=(command, done), daemon=True, name="pulse")
    beat.start()
    try:
        yield
    finally:
        done.set()
        logging.getLogger("advgym").removeHandler(stages)
        if before in sys.meta_path:
            sys.meta_path.remove(before)  # type: ignore[arg-type]


# -- interrupted -----------------------------------------------------------------------------------------------------
def keeps(look: Callable[[], str]) -> None:
    """How this command finds out, when it is interrupted, what of it is on disk: in words."""
    _state["kept"] = look


def kept() -> str:
    """What an interrupted command has kept."""
    look = _state["kept"]
    return str(look()) if look is not None else _NOTHING
