"""A seccomp filter without a library: what the sandboxed processes may not ask of the kernel.

A list of what is denied (with EPERM, so that libraries fall back), not of what is allowed: torch and its kin use
hundreds of calls. Calls that the list does not know because they are newer than it do not exist (ENOSYS).
"""

from __future__ import annotations

import errno
import platform
import struct
import tomllib
from functools import cache
from pathlib import Path

import msgspec

ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
NEWEST = 462  # the last call that this list was checked against
PID = 0xFEEDC0DE  # stands for the process itself, filled in where the filter is loaded
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06  # BPF opcodes
NAMESPACES = 0x7E020000  # CLONE_NEW*
READ_TRUNCATE = 0o1003  # O_TRUNC with O_RDONLY: Landlock before its third version lets it through
SIGCHLD, SET_DUMPABLE, UNNAMED_FILE = 17, 4, 0o20000000
OWNER_COMMANDS = (8, 10, 15)  # fcntl F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to anybody, from a file
OWNER_REQUESTS = (0x8901, 0x8902, 0x5412, 0x541C)  # ioctl FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX

Code = list[tuple[int, int, int, int]]  # opcode, jump if true, jump if false, constant


class Calls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table of system calls: numbers on x86_64 and on aarch64."""

    denied: dict[str, tuple[int, int]]
    owner: dict[str, tuple[int, int]]
    weighed: dict[str, tuple[int, int]]


@cache
def calls() -> Calls:
    """The table that comes with the package."""
    text = Path(__file__).with_name("syscalls.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), Calls)


def supported(machine: str | None = None) -> bool:
    """Whether there is a filter for this machine."""
    return (machine or platform.machine()) in ARCHES


def build(*, files: bool = False, machine: str | None = None) -> bytes:
    """The filter of a whole sandbox.

    Args:
        files: also deny what changes a file's owner, mode, times and links (no mount namespace keeps others' away).
        machine: "x86_64" or "aarch64"; the running one by default.

    Returns:
        The instructions, 8 bytes each, as prctl(PR_SET_SECCOMP) takes them.
    """
    column, head = _head(machine)
    table = calls()
    code = head
    denied = {**table.denied, **(table.owner if files else {})}
    for number in (numbers[column] for numbers in denied.values()):
        code += _on(number, [_refuse(errno.EPERM)])
    for name, body in _weighed(files).items():
        code += _on(table.weighed[name][column], body)
    return _pack([*code, (RETURN, 0, 0, ALLOW)])


def build_signals(machine: str | None = None) -> bytes:
    """A second filter, for kernels that cannot scope signals: a process may signal itself alone (see `PID`)."""
    column, code = _head(machine)
    table = calls().weighed
    for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        code += _on(table[name][column], _unless(0, (PID,)))
    code += _on(table["pidfd_send_signal"][column], [_refuse(errno.EPERM)])
    return _pack([*code, (RETURN, 0, 0, ALLOW)])


def _weighed(files: bool) -> dict[str, Code]:
    """Calls whose arguments decide."""
    opens: Code = [(AND, 0, 0, READ_TRUNCATE), (EQUAL, 0, 1, 0o1000), _refuse(errno.EACCES)]
    unnamed: Code = [(ANY_BIT, 0, 1, UNNAMED_FILE), _refuse(errno.EOPNOTSUPP)] if files else []
    socketpair: Code = [  # a datagram socket could still send to any address
        (LOAD, 0, 0, _argument(0)),
        (EQUAL, 1, 0, 1),
        _refuse(errno.EPERM),
        (LOAD, 0, 0, _argument(1)),
        (AND, 0, 0, 0xF),
        (EQUAL, 2, 0, 1),
        (EQUAL, 1, 0, 5),
        _refuse(errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    fixed: Code = [  # with SIGCHLD ignored, the CPU time of children is in nobody's account
        (LOAD, 0, 0, _argument(0)),
        (EQUAL, 0, 5, SIGCHLD),
        (LOAD, 0, 0, _argument(1)),
        (EQUAL, 0, 2, 0),
        (LOAD, 0, 0, _argument(1) + 4),
        (EQUAL, 1, 0, 0),
        _refuse(errno.EPERM),
    ]
    dumpable: Code = [  # the watchdog must be able to look into /proc
        (LOAD, 0, 0, _argument(0)),
        (EQUAL, 0, 3, SET_DUMPABLE),
        (LOAD, 0, 0, _argument(1)),
        (EQUAL, 0, 1, 0),
        _refuse(errno.EPERM),
    ]
    load_flags = {"open": (LOAD, 0, 0, _argument(1)), "openat": (LOAD, 0, 0, _argument(2))}
    weighed = {
        "clone": [(LOAD, 0, 0, _argument(0)), (ANY_BIT, 0, 1, NAMESPACES), _refuse(errno.EPERM)],
        "clone3": [_refuse(errno.ENOSYS)],  # its flags are behind a pointer; glibc falls back to clone
        "openat2": [_refuse(errno.ENOSYS)],
        "socketpair": socketpair,
        "prctl": dumpable,
        "rt_sigaction": fixed,
        "fcntl": _if(1, OWNER_COMMANDS),
        "ioctl": _if(1, OWNER_REQUESTS),
    }
    for name, load in load_flags.items():
        weighed[name] = [load, *unnamed, *opens]
    for name in ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        weighed[name] = _unless(0, (0,))
    for name in ("setpriority", "ioprio_set"):
        weighed[name] = _unless(1, (0,))
    return weighed


def _head(machine: str | None) -> tuple[int, Code]:
    machine = machine or platform.machine()
    code: Code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, ARCHES[machine]), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    if machine == "x86_64":  # the x32 calls have numbers of their own
        code += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, KILL)]
    code += [(AT_LEAST, 0, 1, NEWEST + 1), _refuse(errno.ENOSYS)]
    return list(ARCHES).index(machine), code


def _on(number: int, body: Code) -> Code:
    """`body` for one call, ending in ALLOW; nothing for a call that this machine does not have."""
    if number < 0:
        return []
    body = body if body[-1][0] == RETURN and len(body) == 1 else [*body, (RETURN, 0, 0, ALLOW)]
    return [(EQUAL, 0, len(body), number), *body]


def _if(index: int, values: tuple[int, ...]) -> Code:
    """Refuse where an argument is one of `values`."""
    tests = [(EQUAL, len(values) - i, 0, v) for i, v in enumerate(values)]
    return [(LOAD, 0, 0, _argument(index)), *tests, (RETURN, 0, 0, ALLOW), _refuse(errno.EPERM)]


def _unless(index: int, values: tuple[int, ...]) -> Code:
    """Refuse where an argument is none of `values`."""
    tests = [(EQUAL, len(values) - i, 0, v) for i, v in enumerate(values)]
    return [(LOAD, 0, 0, _argument(index)), *tests, _refuse(errno.EPERM)]


def _argument(index: int) -> int:
    """Where the low half of an argument lies (both machines are little-endian)."""
    return 16 + 8 * index


def _refuse(code: int) -> tuple[int, int, int, int]:
    return (RETURN, 0, 0, ERRNO | code)


def _pack(code: Code) -> bytes:
    return b"".join(struct.pack("<HBBI", *line) for line in code)
