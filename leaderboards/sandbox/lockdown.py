"""Calls into the Linux kernel by which a process gives its rights away. Standard library alone: it runs before imports.

This file and `zygote.py` are run by path inside the sandbox; the host imports them only for their constants.
"""

from __future__ import annotations

import ctypes
import os
import struct

NO_NEW_PRIVS, SET_SECCOMP, SET_DUMPABLE, PARENT_DEATH, KEEP_CAPS, SUBREAPER, AMBIENT = 38, 22, 4, 1, 8, 36, 47
CREATE_RULESET, ADD_RULE, RESTRICT = 444, 445, 446  # the same numbers on every machine
READ_SEARCH = 2  # CAP_DAC_READ_SEARCH
PID = 0xFEEDC0DE  # as in seccomp.py

# Landlock's rights over files; every version adds some
EXECUTE, WRITE, READ, LIST, REMOVE_DIR, REMOVE, MAKE_DIR, MAKE_FILE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 16, 32, 128, 256
MAKE_FIFO, MAKE_LINK, REFER, TRUNCATE, DEVICE = 1 << 10, 1 << 12, 1 << 13, 1 << 14, 1 << 15
FILE_RIGHTS = EXECUTE | WRITE | READ | TRUNCATE | DEVICE  # the others are of folders
ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}  # from 5 up: 16 bits
GRANTS = {
    "read": EXECUTE | READ | LIST,
    "scratch": READ
    | LIST
    | WRITE
    | TRUNCATE
    | REMOVE_DIR
    | REMOVE
    | MAKE_DIR
    | MAKE_FILE
    | MAKE_FIFO
    | MAKE_LINK
    | REFER,
    "device": READ | WRITE | DEVICE,
}

_libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A raw system call.

    Raises:
        OSError: with the kernel's errno.
    """
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = _libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return int(result)


def prctl(option: int, *args: int) -> int:
    """Change something about this process; raises OSError."""
    values = [ctypes.c_ulong(a) for a in (*args, 0, 0, 0, 0)[:4]]
    result = _libc.prctl(ctypes.c_int(option), *values)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")
    return int(result)


def landlock_version() -> int:
    """The kernel's Landlock ABI; 0 where there is none."""
    try:
        return call(CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def become(uid: int, gid: int, keep_search: bool) -> None:
    """Drop to another user, for good; with `keep_search` one capability stays, to read any path."""
    os.setgroups([])
    if keep_search:
        prctl(KEEP_CAPS, 1)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if keep_search:
        _set_capabilities(1 << READ_SEARCH)
        prctl(AMBIENT, 2, READ_SEARCH)
        prctl(KEEP_CAPS, 0)


def _set_capabilities(mask: int) -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", mask, mask, mask, 0, 0, 0))
    if _libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")


def landlock(version: int, paths: list[tuple[str, str]]) -> None:
    """Confine this process and its children to `paths`; no TCP; from version 6, signals within only.

    Args:
        version: of the ABI, from 1.
        paths: (grant, path); a path that does not exist is left out.
    """
    handled = ALL_RIGHTS.get(version, (1 << 16) - 1)
    fields = [handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0]  # files; bind and connect; sockets, signals
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = call(CREATE_RULESET, struct.pack("=3Q", *fields), size, 0)
    try:
        for grant, path in paths:
            _allow(ruleset, path, GRANTS[grant] & handled)
        prctl(NO_NEW_PRIVS, 1)
        call(RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= FILE_RIGHTS
        call(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def seccomp(program: bytes) -> None:
    """Load a filter (8 bytes an instruction); its PID constant becomes this process's id."""
    program = program.replace(struct.pack("<I", PID), struct.pack("<I", os.getpid()))
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    prctl(NO_NEW_PRIVS, 1)
    prctl(SET_SECCOMP, 2, ctypes.addressof(head))
