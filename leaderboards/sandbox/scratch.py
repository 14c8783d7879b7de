"""How much a turn wrote to a scratch folder on the host's disk; under bubblewrap file systems are small instead."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

FILES = 10_000
SIZE_MB = 256


def overfull(folder: Path, pids: Iterable[int]) -> str:
    """What is too much ("" for nothing): of files, of bytes, or of bytes in files that have no name any more.

    Args:
        folder: the scratch folder.
        pids: of everybody who may hold a file open.
    """
    count = size = 0
    todo = [str(folder)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    count += 1
                    if count > FILES:
                        return f"more than {FILES} files in the scratch folder"
                    info = entry.stat(follow_symlinks=False)
                    size += info.st_blocks * 512
                    if stat.S_ISDIR(info.st_mode):
                        todo.append(entry.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # gone meanwhile, or closed by its owner, who cannot write to it either
        except OSError:
            return "folders nested too deep in the scratch folder"
    size += sum(_unnamed(pid) for pid in pids)
    return f"more than {SIZE_MB} MB in the scratch folder" if size > SIZE_MB << 20 else ""


def _unnamed(pid: int) -> int:
    """Bytes in files that one process holds open and that were removed."""
    total = 0
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                info = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if stat.S_ISREG(info.st_mode) and info.st_nlink == 0:
                total += info.st_blocks * 512
    except OSError:
        return 0
    return total
