"""Warm boxes, ready before they are needed."""

from __future__ import annotations

import queue
import threading
from typing import Any

from advgym.leaderboards.sandbox.box import Box


class Spares:
    """Keeps `count` boxes warm. What is taken is replaced in the background.

    Args:
        count: of warm boxes, from 1.
        level: as for `Box`; so are the other options.
    """

    def __init__(self, count: int = 1, level: str | None = None, **options: Any) -> None:
        self._level, self._options = level, options
        self._ready: queue.Queue[Box | BaseException] = queue.Queue()
        self._wanted = threading.Semaphore(count)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="sandbox-spares", daemon=True)
        self._thread.start()

    def __enter__(self) -> Spares:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, gpu: bool = False) -> Box:
        """A warm box, the caller's from now on; waits for one where there is none. One with the GPU starts now.

        Raises:
            SandboxError: when boxes cannot be started.
            RuntimeError: after `close`.
        """
        if self._closed.is_set():
            raise RuntimeError("these spares are closed")
        if gpu:
            return Box(self._level, **{**self._options, "gpu": True})
        found = self._ready.get()
        self._wanted.release()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """Close the boxes that nobody took; idempotent."""
        self._closed.set()
        self._wanted.release()
        self._thread.join()
        while not self._ready.empty():
            found = self._ready.get()
            if isinstance(found, Box):
                found.close()

    def _fill(self) -> None:
        while True:
            self._wanted.acquire()
            if self._closed.is_set():
                return
            try:
                box = Box(self._level, **self._options)
                try:
                    box.wait()
                except BaseException:
                    box.close()
                    raise
                self._ready.put(box)
            except Exception as error:
                self._ready.put(error)
