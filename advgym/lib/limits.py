"""A limit on how long a piece of work may take, for work that hangs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from advgym.errors import AdvgymError


class _Over(BaseException):
    """Time is up; no Exception, or whatever runs would take it for a failure of its own and go on."""


@contextmanager
def limited(seconds: float, what: str) -> Iterator[None]:
    """Within it, work is broken off after `seconds` (0 for no limit).

    Only Python that gets back to its interpreter can be broken off, in the main thread of a process, where the system
    has such a clock; elsewhere there is no limit.

    Raises:
        AdvgymError: when time is up, with `what` took too long.
    """
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not seconds or not able:
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise _Over

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Over:
        raise AdvgymError(f"{what} took more than {seconds:g} s: allow more, or see what hangs") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
