"""The seccomp programs, run by a small interpreter: every call of either machine, whatever its arguments."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from advgym.leaderboards.sandbox import lockdown
from advgym.leaderboards.sandbox.seccomp import ALLOW, ARCHES, ERRNO, KILL, NEWEST, PID, build, build_signals, calls

MACHINES = sorted(ARCHES)
FREE = {"read": (0, 63), "write": (1, 64), "mmap": (9, 222), "futex": (202, 98), "exit_group": (231, 94)}
words = st.integers(0, 2**64 - 1) | st.integers(0, 64) | st.sampled_from([1 << 17, 1 << 28, 0o20200000, 0o1000, 0o1002])


def run(program: bytes, machine: str, number: int, args: list[int], arch: int | None = None) -> int:
    """What the kernel's interpreter answers; jumps and loads outside raise."""
    data = struct.pack("<IIQ6Q", number, ARCHES[machine] if arch is None else arch, 0, *args)
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    value = at = 0
    while True:
        operation, true, false, constant = code[at]
        at += 1
        match operation:
            case 0x20:
                (value,) = struct.unpack_from("<I", data, constant)
            case 0x54:
                value &= constant
            case 0x15:
                at += true if value == constant else false
            case 0x35:
                at += true if value >= constant else false
            case 0x45:
                at += true if value & constant else false
            case 0x06:
                return constant
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")


def refused(code: int) -> int:
    return ERRNO | code


def expected(name: str, args: list[int], files: bool) -> int:
    """The rules in plain Python."""
    low = [a & 0xFFFFFFFF for a in args]
    if name in calls().denied or (files and name in calls().owner):
        return refused(errno.EPERM)
    if name in ("clone3", "openat2"):
        return refused(errno.ENOSYS)
    if name in ("open", "openat"):
        flags = low[1 if name == "open" else 2]
        if files and flags & 0o20000000:
            return refused(errno.EOPNOTSUPP)
        return refused(errno.EACCES) if flags & 0o1000 and flags & 3 == 0 else ALLOW
    denied = {
        "clone": low[0] & 0x7E020000,
        "socketpair": low[0] != 1 or low[1] & 15 not in (1, 5),
        "prctl": low[0] == 4 and low[1] == 0,
        "rt_sigaction": low[0] == 17 and args[1] != 0,
        "fcntl": low[1] in (8, 10, 15),
        "ioctl": low[1] in (0x8901, 0x8902, 0x5412, 0x541C),
        **{n: low[0] != 0 for n in ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam")},
        "sched_setattr": low[0] != 0,
        "setpriority": low[1] != 0,
        "ioprio_set": low[1] != 0,
    }
    return refused(errno.EPERM) if denied.get(name) else ALLOW


@pytest.mark.parametrize("files", [False, True])
@pytest.mark.parametrize("machine", MACHINES)
@given(data=st.data(), args=st.lists(words, min_size=6, max_size=6))
def test_every_call_in_the_table(machine: str, files: bool, data: st.DataObject, args: list[int]) -> None:
    table = calls()
    column = list(ARCHES).index(machine)
    named = {**table.denied, **table.owner, **table.weighed, **FREE}
    name = data.draw(st.sampled_from(sorted(n for n, numbers in named.items() if numbers[column] >= 0)))
    assert run(build(files=files, machine=machine), machine, named[name][column], args) == expected(name, args, files)


@pytest.mark.parametrize("machine", MACHINES)
@given(number=st.integers(0, 2**32 - 1), args=st.lists(words, min_size=6, max_size=6))
@example(number=0x40000000 + 1, args=[0] * 6)
@example(number=NEWEST + 1, args=[0] * 6)
def test_numbers_outside_the_table(machine: str, number: int, args: list[int]) -> None:
    answer = run(build(machine=machine), machine, number, args)
    if machine == "x86_64" and number >= 0x40000000:
        assert answer == KILL
    elif number > NEWEST:
        assert answer == refused(errno.ENOSYS)
    else:
        assert answer in (ALLOW, *(refused(e) for e in (errno.EPERM, errno.EACCES, errno.ENOSYS)))


@pytest.mark.parametrize("machine", MACHINES)
@given(arch=st.integers(0, 2**32 - 1), number=st.integers(0, 500))
@example(arch=0x40000003, number=20)
def test_other_machines_are_killed(machine: str, arch: int, number: int) -> None:
    if arch != ARCHES[machine]:
        assert run(build(machine=machine), machine, number, [0] * 6, arch) == KILL


@pytest.mark.parametrize("machine", MACHINES)
@given(pid=st.integers(0, 2**32 - 1), name=st.sampled_from(["kill", "tkill", "tgkill", "rt_sigqueueinfo"]))
def test_signals_to_oneself_alone(machine: str, pid: int, name: str) -> None:
    number = calls().weighed[name][list(ARCHES).index(machine)]
    answer = run(build_signals(machine), machine, number, [pid, 9, 0, 0, 0, 0])
    assert answer == (ALLOW if pid == PID else refused(errno.EPERM))


@pytest.mark.parametrize("machine", MACHINES)
def test_programs_are_what_the_kernel_takes(machine: str) -> None:
    for program in (build(machine=machine), build(files=True, machine=machine), build_signals(machine)):
        assert len(program) % 8 == 0 and len(program) // 8 <= 4096  # BPF_MAXINSNS
        assert struct.unpack_from("<HBBI", program, len(program) - 8)[0] == 0x06


def test_table_has_no_number_twice_and_none_out_of_range() -> None:
    table = calls()
    for column in (0, 1):
        numbers = [n[column] for g in (table.denied, table.owner, table.weighed) for n in g.values() if n[column] >= 0]
        assert len(numbers) == len(set(numbers)) and max(numbers) <= NEWEST
        assert not set(numbers) & {n[column] for n in FREE.values()}


def test_placeholder_is_the_same_on_both_sides() -> None:
    assert lockdown.PID == PID and build_signals().count(struct.pack("<I", PID)) == 5
