"""Empty a folder that a stranger filled. Standard library alone: the sandbox's inside runs it by path."""

from __future__ import annotations

import os
import stat
import time


def wipe(top: str, deadline: float) -> bool:
    """Remove everything in `top`, whatever its modes and however deep, following no link.

    Nested folders are moved up to the top first: no path gets longer than two names, and no folder stays open.

    Args:
        top: the folder, which stays. No process may still be writing to it.
        deadline: of time.monotonic(), seconds.

    Returns:
        Whether it is empty now.
    """
    moved = 0
    try:
        root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        while names := os.listdir(root):
            for name in names:
                if time.monotonic() > deadline:
                    return False
                moved = _remove(root, name, moved)
    except OSError:
        return False
    finally:
        os.close(root)
    return True


def _remove(root: int, name: str, moved: int) -> int:
    """Unlink a file, or take one folder apart."""
    if not stat.S_ISDIR(os.lstat(name, dir_fd=root).st_mode):
        os.unlink(name, dir_fd=root)
        return moved
    try:
        os.rmdir(name, dir_fd=root)
        return moved
    except OSError:
        pass
    if stat.S_IMODE(os.lstat(name, dir_fd=root).st_mode) & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=root)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    try:
        for child in os.listdir(inner):
            info = os.lstat(child, dir_fd=inner)
            if not stat.S_ISDIR(info.st_mode):
                os.unlink(child, dir_fd=inner)
                continue
            if stat.S_IMODE(info.st_mode) & 0o700 != 0o700:  # a folder moves only when it can be written
                os.chmod(child, 0o700, dir_fd=inner)
            moved += 1
            os.rename(child, f".{moved}.{os.urandom(6).hex()}", src_dir_fd=inner, dst_dir_fd=root)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=root)
    return moved
