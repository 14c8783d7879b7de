"""bubblewrap: a root of its own with little in it, and namespaces of its own for processes, network and the rest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from advgym.leaderboards.sandbox import paths

SUBMISSION, SCRATCH, SHARED = "/submission", "/scratch", "/dev/shm"
SCRATCH_MB, SHARED_MB = 256, 64  # of the scratch folder, which is /tmp too, and of /dev/shm


@cache
def program() -> str:
    """Where bubblewrap is; "" where it is not."""
    return shutil.which("bwrap") or ""


@cache
def version() -> tuple[int, ...]:
    """The version of bubblewrap."""
    said = subprocess.run([program(), "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    return tuple(int(n) for n in re.findall(r"\d+", said)[:3])


def root_options(binds: Sequence[Path], submission: Path | None, gpu: bool = False) -> list[str]:
    """The options that make the file system: read-only but for two folders, whose sizes are bounded."""
    mb = 1 << 20
    options = ["--proc", "/proc", "--dev", "/dev"]
    options += ["--perms", "1777", "--size", str(SHARED_MB * mb), "--tmpfs", SHARED]
    options += ["--perms", "1777", "--size", str(SCRATCH_MB * mb), "--tmpfs", SCRATCH]
    for place in map(Path, paths.SYSTEM):
        if place.is_symlink():
            options += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            options += ["--ro-bind", str(place), str(place)]
    made: set[Path] = {Path("/"), *map(Path, paths.SYSTEM)}
    bound = paths.outermost([*paths.runtime(), *binds])
    if not any(p.is_relative_to("/tmp") for p in bound):
        options += ["--symlink", SCRATCH, "/tmp"]
    single = [p for p in map(Path, paths.SINGLE) if p.exists()] if not gpu else [Path("/sys"), *_single_files()]
    for place in [*single, *bound]:
        for parent in reversed(place.parents):  # bwrap would copy the mode of /root, 0700
            if parent not in made:
                options += ["--perms", "0755", "--dir", str(parent)]
                made.add(parent)
        options += ["--ro-bind", str(place), str(place)]
    if gpu:
        for name in paths.NVIDIA:  # after --dev, or the new /dev would hide them
            options += ["--dev-bind-try", f"/dev/{name}", f"/dev/{name}"]
    if submission is not None:
        options += ["--ro-bind", str(submission), SUBMISSION]
    return [*options, "--remount-ro", "/", "--remount-ro", "/dev"]


def _single_files() -> list[Path]:
    return [p for p in map(Path, paths.SINGLE) if p.exists() and not p.is_relative_to("/sys")]


def options(root: list[str], keep_search: bool = False) -> list[str]:
    """All options; as root there is no user namespace, and what is run drops to a user of its own."""
    every = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    every += ["--hostname", "sandbox", "--as-pid-1", "--chdir", "/"]
    if os.geteuid() == 0:
        every += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        if keep_search:
            every += ["--cap-add", "CAP_DAC_READ_SEARCH"]
    else:
        every += ["--unshare-user"]
        if version() >= (0, 8):
            every += ["--disable-userns"]
    for name, value in paths.environment(SCRATCH).items():
        every += ["--setenv", name, value]
    return [*every, *root]


def start(
    options: list[str], command: list[str], fds: Sequence[int] = (), stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Start bubblewrap with an empty environment, its options by a file: neither can be read from the inside."""
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(o.encode() + b"\0" for o in options))
        file.seek(0)
        return subprocess.Popen(
            [program(), "--args", str(file.fileno()), "--", *command],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=[file.fileno(), *fds],
            start_new_session=True,
        )
