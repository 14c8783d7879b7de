"""What a submission may use: CPU, memory, processes, files, output, time. Each trap at each level."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from sandbox_play import CONFINED, ROOMY, ask, open_box, play

from advgym.leaderboards.rules.board_tables import Limits
from advgym.leaderboards.sandbox import Box, watchdog


@pytest.fixture(scope="module", params=[*CONFINED, "unsandboxed"])
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with open_box(request.param, tmp_path_factory.mktemp("box") / "in", runtime=("numpy",)) as made:
        made.name = request.param
        yield made


# What does not depend on how Landlock's first version kills.
THREE = pytest.mark.parametrize("box", ["bwrap", "landlock", "unsandboxed"], indirect=True, scope="module")
TWO = pytest.mark.parametrize("box", ["bwrap", "landlock"], indirect=True, scope="module")


def confined(box: Box) -> None:
    if box.level == "unsandboxed":
        pytest.skip("the level has no filter")


def limits(**changed: float) -> Limits:
    return Limits(**{"cpu_s": 20, "wall_s": 300, "memory_mb": 1024, "processes": 16, **changed})


# -- CPU -------------------------------------------------------------------------------------------------------
@THREE
def test_cpu_of_one_process(box: Box) -> None:
    _, ended = play(box, "while True: pass", limits(cpu_s=0.3))
    assert ended.reason == "cpu-limit" and ended.cpu_s >= 0.3
    assert "0.3 s allowed" in ended.detail


@TWO
def test_cpu_limit_of_the_kernel_when_its_signal_is_ignored(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """RLIMIT_CPU alone, as if the watchdog slept: soft is hard, so ignoring SIGXCPU does not help."""
    monkeypatch.setattr(watchdog, "usage", lambda *_: watchdog.Usage())
    _, ended = play(
        box, "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", limits(cpu_s=1)
    )
    assert ended.reason == "cpu-limit" and 1 < ended.cpu_s < 4


@THREE
def test_cpu_of_many_short_children(box: Box) -> None:
    code = """
import os
while True:
    pid = os.fork()
    if pid == 0:
        sum(range(300000)); os._exit(0)
    os.waitpid(pid, 0)
"""
    _, ended = play(box, code, limits(cpu_s=0.3))
    assert ended.reason == "cpu-limit" and ended.cpu_s >= 0.3


def test_cpu_of_orphans(box: Box) -> None:
    """Forked twice, so that their parent, who would collect their time, is gone."""
    code = """
import os, time
while True:
    if os.fork() == 0:
        if os.fork() == 0:
            sum(range(1000000))
        os._exit(0)
    os.wait(); time.sleep(0.02)
"""
    _, ended = play(box, code, limits(cpu_s=0.3))
    assert ended.reason == "cpu-limit" and ended.cpu_s >= 0.3


@TWO
def test_cpu_of_children_that_nobody_collects(box: Box) -> None:
    """With SIGCHLD ignored, the kernel forgets the time of dead children: the filter refuses that."""
    confined(box)
    code = """
import os, signal
try:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    tell("ignored")
except OSError:
    tell("refused")
while True:
    if os.fork() == 0:
        sum(range(1000000)); os._exit(0)
    try: os.wait()
    except OSError: pass
"""
    told, ended = play(box, code, limits(cpu_s=0.3))
    assert told == ["refused"] and ended.reason == "cpu-limit"


@THREE
def test_cpu_used_is_reported(box: Box) -> None:
    code = """
import os, time
if os.fork() == 0:
    e = time.process_time() + .2
    while time.process_time() < e: pass
    os._exit(0)
os.wait()
"""
    _, ended = play(box, code)
    assert ended.reason == "" and ended.exit == 0 and 0.19 <= ended.cpu_s < 10


# -- memory ----------------------------------------------------------------------------------------------------
@THREE
def test_memory_that_is_only_asked_for(box: Box) -> None:
    told, ended = play(box, "import numpy\ntry: numpy.ones(10 << 30)\nexcept MemoryError: tell('refused')")
    assert told == ["refused"] and ended.reason == ""


@THREE
def test_memory_that_grows(box: Box) -> None:
    code = "import time\nkept = []\nwhile True: kept.append(b'x' * (16 << 20)); time.sleep(0.02)"
    _, ended = play(box, code, limits(memory_mb=300))
    assert (ended.reason, ended.exit) in (("memory-limit", None), ("exited", 1))
    assert ended.reason == "memory-limit" or b"MemoryError" in ended.stderr_last + ended.stderr_first
    assert ended.peak_mb > 200


def test_memory_of_all_processes_together(box: Box) -> None:
    code = """
import os, time
for i in range(6):
    if os.fork() == 0:
        kept = b"x" * (100 << 20)
        time.sleep(600)
time.sleep(600)
"""
    _, ended = play(box, code, limits(memory_mb=300))
    assert ended.reason == "memory-limit" and "300 MB allowed" in ended.detail


@THREE
def test_memory_shared_with_children_counts_once(box: Box) -> None:
    code = """
import os, time
kept = b"x" * (150 << 20)
read, write = os.pipe()
for i in range(6):
    if os.fork() == 0:
        os.close(write)
        os.read(read, 1)  # until the parent leaves
        os._exit(0)
time.sleep(0.5)  # the watchdog looks ten times a second
tell(1)
"""
    told, ended = play(box, code, limits(memory_mb=400))
    assert told == [1] and ended.reason == "", ended


@TWO
def test_memory_in_files_without_a_process(box: Box) -> None:
    """memfd_create, System V segments: outside every limit of a process."""
    confined(box)
    code = """
import os, ctypes
try: os.memfd_create("x"); tell("memfd")
except OSError as error: tell(error.errno)
tell(ctypes.CDLL(None).shmget(0, 1 << 20, 0o1666))
"""
    told, _ = play(box, code)
    assert told == [1, -1]


# -- processes -------------------------------------------------------------------------------------------------
def test_fork_bomb(box: Box) -> None:
    _, ended = play(box, "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", limits(processes=20))
    assert ended.reason == "process-limit" and "20 allowed" in ended.detail
    assert watchdog.below(watchdog.everybody(), box._root)[1:] == []


def test_number_of_processes_is_bounded_by_the_kernel_too(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the watchdog; a sandbox has a user id, or a user namespace, of its own."""
    confined(box)
    if box._slot is None and box.level != "bwrap":
        pytest.skip("an ordinary user's processes count together: the kernel's limit is only a far one here")
    monkeypatch.setattr(watchdog, "usage", lambda *_: watchdog.Usage())
    code = """
import os, time
made = 0
for i in range(200):
    try: pid = os.fork()
    except BlockingIOError: break
    if pid == 0: time.sleep(600)
    made += 1
tell(made)
"""
    told, _ = play(box, code, limits(processes=10))
    assert 10 <= told[0] <= 2 * 10 + 8


def test_threads_count_as_processes(box: Box) -> None:
    code = """
import threading, time
for i in range(40):
    threading.Thread(target=time.sleep, args=(600,)).start()
    time.sleep(0.01)
"""
    _, ended = play(box, code, limits(processes=10))
    assert ended.reason == "process-limit" or (ended.reason == "exited" and b"new thread" in ended.stderr_first)


# -- files and output ------------------------------------------------------------------------------------------
@THREE
def test_one_file_is_bounded(box: Box) -> None:
    told, _ = play(
        box,
        """
try:
    with open("big", "wb") as file:
        for i in range(100): file.write(bytes(1 << 20))
    tell("written")
except OSError as error:
    tell(error.errno)
""",
    )
    assert told[0] == 27  # EFBIG


@THREE
def test_many_files_are_bounded(box: Box) -> None:
    code = """
import time, os
try:
    for n in range(12):
        with open(str(n), "wb") as file:
            for i in range(60): file.write(b"x" * (1 << 20))
    time.sleep(600)
except OSError as error:
    tell(error.errno)
"""
    told, ended = play(box, code, ROOMY)
    if box.level == "bwrap":
        assert told == [28] and ended.reason == ""  # ENOSPC: the file system is small
    else:
        assert ended.reason == "output-limit" and "256 MB" in ended.detail


@THREE
def test_files_without_a_name_are_bounded(box: Box) -> None:
    code = """
import time, os
kept = []
try:
    for n in range(12):
        kept.append(open(str(n), "wb"))
        os.unlink(str(n))
        for i in range(60): kept[-1].write(b"x" * (1 << 20))
        kept[-1].flush()
    time.sleep(600)
except OSError as error:
    tell(error.errno)
"""
    told, ended = play(box, code, ROOMY)
    assert (told == [28]) if box.level == "bwrap" else (ended.reason == "output-limit"), (told, ended)


@TWO
def test_files_that_never_had_a_name(box: Box) -> None:
    confined(box)
    code = """
import os
try: os.open('.', os.O_TMPFILE | os.O_RDWR); tell('made')
except OSError as error: tell(error.errno)
"""
    assert ask(box, code) == ("made" if box.level == "bwrap" else 95)


def test_empty_files_are_bounded(box: Box) -> None:
    """They take no bytes of a tmpfs, only the kernel's memory."""
    code = "import time\nfor n in range(11000): open(str(n), 'w').close()\ntime.sleep(600)"
    _, ended = play(box, code)
    assert ended.reason == "output-limit" and "10000 files" in ended.detail
    assert ask(box, "import os; tell(os.listdir('.'))") == ["code.py"]


@THREE
def test_output_never_blocks_and_both_ends_are_kept(box: Box) -> None:
    code = """
import os, sys
os.write(2, b"first")
for i in range(30): os.write(1 + i % 2, b"x" * (1 << 20))
print("last", file=sys.stderr)
tell(1)
"""
    told, ended = play(box, code)
    assert told == [1] and ended.reason == "" and ended.exit == 0
    assert ended.stderr_first.startswith(b"first") and ended.stderr_last.endswith(b"last\n")
    assert len(ended.stderr_first) == len(ended.stderr_last) == 4096


def test_short_output_is_kept_once(box: Box) -> None:
    _, ended = play(box, "import sys; print('to stdout'); print('to stderr', file=sys.stderr)")
    assert ended.stderr_first == b"to stdout\nto stderr\n" and ended.stderr_last == b""


@THREE
def test_printing_forever(box: Box) -> None:
    _, ended = play(box, "import os\nwhile True: os.write(2, b'x' * (1 << 20))")
    assert ended.reason == "output-limit" and "64 MB" in ended.detail


def test_log_shows_where_it_crashed(box: Box) -> None:
    _, ended = play(box, "def broken(): raise ValueError('because')\nbroken()")
    assert ended.reason == "exited" and ended.exit == 1 and ended.detail == "exit status 1"
    assert b"ValueError: because" in ended.stderr_first


# -- time ------------------------------------------------------------------------------------------------------
def test_wall_clock(box: Box) -> None:
    _, ended = play(box, "import time; time.sleep(600)", limits(wall_s=0.3))
    assert ended.reason == "wall-limit" and ended.wall_s >= 0.3


def test_time_outside_the_clock_is_free(box: Box) -> None:
    turn = box.turn(limits(wall_s=0.2), role="agent")
    time.sleep(0.5)
    ended = turn.end()
    assert ended.reason == "" and ended.wall_s == 0 and ended.exit is None


# -- how it ended ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "reason", "exit"),
    [
        ("tell(1)", "", 0),
        ("import sys; tell(1); sys.exit(3)", "exited", 3),
        ("import os; tell(1); os._exit(0)", "", 0),
        ("import os; tell(1); os.abort()", "exited", -6),
        ("import os; tell(1); os.kill(os.getpid(), 9)", "exited", -9),
        ("tell(1); import ctypes; ctypes.string_at(0)", "exited", -11),
    ],
)
def test_exits(box: Box, code: str, reason: str, exit: int) -> None:
    told, ended = play(box, code)
    # the host may say "end" in the instant between the socket's end and the child's
    assert told == [1] and (ended.reason, ended.exit) in ((reason, exit), ("", None)), ended


def test_end_of_a_healthy_child(box: Box) -> None:
    turn = box.turn(ROOMY, role="agent")
    ended = turn.end()
    assert ended.reason == "" and ended.exit is None
    assert turn.end() is ended and turn.sock.fileno() == -1


def test_role_and_folder_reach_the_child(box: Box) -> None:
    assert ask(box, "import os; tell([role, os.listdir(folder)])") == ["agent", ["agent.py"]]


def test_box_survived_all_that(box: Box) -> None:
    assert ask(box, "tell(1)") == 1
    assert watchdog.below(watchdog.everybody(), box._root)[1:] == []
    assert box.level == "bwrap" or os.listdir(box._scratch) == []
