"""The levels of isolation, from strongest to none, and which of them this machine has."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

from advgym.errors import AdvgymError, unknown
from advgym.leaderboards.sandbox import bwrap, lockdown, seccomp

LEVELS = ("bwrap", "landlock", "unsandboxed")
USERNS = (
    "this system lets no ordinary user make a user namespace (Ubuntu 23.10 and later: AppArmor). Allow it to "
    "bubblewrap alone by the profile /etc/apparmor.d/bwrap: `abi <abi/4.0>, profile bwrap /usr/bin/bwrap "
    "flags=(unconfined) {{ userns, }}`, then `sudo systemctl reload apparmor`; in a container, allow the system calls "
    "unshare and mount. It said: {said}"
)


class SandboxError(AdvgymError):
    """A sandbox that could not be started, or that died while nothing ran in it. The platform's fault."""


@cache
def missing() -> dict[str, str]:
    """The levels that cannot be used here: why, and what to do about it. Probed once."""
    found = {"bwrap": _no_bwrap(), "landlock": _no_landlock()}
    return {level: why for level, why in found.items() if why}


def best_level() -> str:
    """The strongest level that works here."""
    return next(level for level in LEVELS if level not in missing())


def usable(level: str | None) -> str:
    """`level`, or the best one for None.

    Raises:
        AdvgymError: for an unknown name.
        SandboxError: for a level that this machine does not have, with the reason.
    """
    if level is None:
        return best_level()
    if level not in LEVELS:
        raise unknown("sandbox level", level, LEVELS)
    if level in missing():
        raise SandboxError(f"sandbox level {level!r} is missing here: {missing()[level]}")
    return level


def _common() -> str:
    if sys.platform != "linux":
        return f"it needs Linux, and this is {sys.platform}; use a virtual machine"
    if not seccomp.supported():
        return f"there is no seccomp filter for {platform.machine()}; known: {', '.join(seccomp.ARCHES)}"
    return ""


def _no_bwrap() -> str:
    if why := _common():
        return why
    if not bwrap.program():
        return "bubblewrap is not installed: apt-get install bubblewrap (dnf, pacman: the same name)"
    options = bwrap.options(bwrap.root_options([], None))
    command = [sys.executable, "-I", "-S", "-c", ""]
    try:
        process = bwrap.start(options, command, stderr=subprocess.PIPE)
        said = process.communicate(timeout=30)[1].decode(errors="replace").strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{bwrap.program()} cannot be run: {error}"
    if process.returncode == 0:
        return ""
    if os.geteuid() != 0 and ("uid map" in said or "namespace" in said or "ermission" in said):
        return USERNS.format(said=said)
    return f"{bwrap.program()} fails (exit {process.returncode}): {said or 'no message'}"


def _no_landlock() -> str:
    if why := _common():
        return why
    if lockdown.landlock_version() == 0:
        return "the kernel has no Landlock (Linux 5.13 or later, with landlock in /sys/kernel/security/lsm)"
    if not Path("/proc/self/stat").exists():
        return "/proc is not mounted, and the watchdog needs it"
    return ""
