"""Files that survive a kill: written whole or not at all, one writer at a time."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from advgym.errors import AdvgymError, DataError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put a file in its place in one step, on the disk before this returns.

    Raises:
        DataError: the disk said no.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise DataError(f"cannot write {path}: {error.strerror}") from None


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; the kernel lets go of it when its holder dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(f"cannot lock {path}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def check_name(name: str) -> str:
    """A name that may become a part of a path.

    Raises:
        AdvgymError: anything but small letters, digits, `-` and `_`.
    """
    if not NAME.fullmatch(name):
        raise AdvgymError(f"{name[:80]!r} is no name: small letters, digits, - and _, at most 64 of them")
    return name
