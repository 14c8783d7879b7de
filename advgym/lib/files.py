"""Files replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path

from advgym.errors import DataError


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file in one step, so that a killed run leaves the old one or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from None
