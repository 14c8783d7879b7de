"""What Python and the runtime need of the file system: nothing else is in a sandbox."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SINGLE = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/sys/devices/system/cpu")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
PROC = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems", "/proc/sys/kernel")
NVIDIA = ("nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
HERE = Path(__file__).resolve().parent


@cache
def runtime() -> tuple[Path, ...]:
    """The interpreter, its virtual environment, and this package where it is not installed there; outermost alone.

    In an editable checkout that is the four folders of code, not the checkout: it may hold data.
    """
    code = HERE.parents[1]  # the package, or the root of a checkout
    package = [code / name for name in ("advgym", "envs", "agents", "leaderboards")]
    if not (code / "advgym" / "__init__.py").exists():  # installed: one folder (a checkout has an __init__.py, too)
        package = [code]
    wanted = [Path(sys.base_prefix), Path(sys.prefix), Path(sys.base_prefix).resolve(), *package]
    return outermost(p.absolute() for p in wanted if p.exists())


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Those that lie in none of the others, nor in what every sandbox has; sorted."""
    found: list[Path] = []
    for path in sorted(set(paths), key=lambda p: (len(p.parts), p)):
        if not any(path.is_relative_to(f) for f in [*found, *map(Path, SYSTEM)]):
            found.append(path)
    return tuple(found)


def others_can_read(paths: Iterable[Path], *, parents: bool) -> bool:
    """Whether another user may read these paths; with `parents`, also whether he can get there."""
    for path in paths:
        folders = [path, *(path.parents if parents else ())]
        need = [0o5, *[0o1] * (len(folders) - 1)]  # read and pass the path itself, pass its parents
        if any(os.stat(f).st_mode & bits != bits for f, bits in zip(folders, need, strict=True) if f.is_dir()):
            return False
    return True


def environment(scratch: str) -> dict[str, str]:
    """The whole environment of a sandbox: nothing of the host's. One thread, one hash seed: the same every time."""
    return {
        "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
        "HOME": scratch,
        "TMPDIR": scratch,
        "USER": "agent",
        "LOGNAME": "agent",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
