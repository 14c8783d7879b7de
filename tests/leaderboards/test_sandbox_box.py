"""Boxes, turns, spares and the ladder, as the host uses them."""

from __future__ import annotations

import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sandbox_play import ENTRY, ROOMY, ask, need, open_box, play

from advgym.errors import AdvgymError
from advgym.leaderboards import sandbox
from advgym.leaderboards.rules.board_tables import Limits
from advgym.leaderboards.sandbox import (
    LEVELS,
    Box,
    SandboxError,
    Spares,
    bwrap,
    inmates,
    ladder,
    launch,
    paths,
    slots,
    watchdog,
    wipe,
)
from advgym.leaderboards.sandbox.ended import KEPT, Output


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small runtime, for boxes that start again as well."""
    monkeypatch.setattr(launch, "RUNTIME", ("json",))


LEVEL = pytest.mark.parametrize("level", LEVELS)


def until(seen: Callable[[], object]) -> None:
    """Returns as soon as `seen` is true."""
    end = time.monotonic() + 300
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive_below(root: int) -> list[int]:
    return [p.pid for p in watchdog.below(watchdog.everybody(), root) if p.state not in "ZX"]


# -- boxes -----------------------------------------------------------------------------------------------------
@LEVEL
def test_runtime_is_warm_and_computes_as_outside(level: str, tmp_path: Path) -> None:
    import torch

    with open_box(level, tmp_path / "in", runtime=("torch", "msgspec", "gymnasium", "advgym")) as box:
        box.wait()
        assert box.threads == 1  # a fork takes one thread along
        code = """
import sys
warm = all(n in sys.modules for n in ("torch", "numpy", "msgspec", "gymnasium", "advgym"))
import torch
x = torch.randn(2, 3, 16, 16, requires_grad=True)
y = torch.nn.Conv2d(3, 4, 3)(x); y.square().sum().backward()
tell([warm, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), float(x.grad.sum())])
"""
        first, second = ask(box, code), ask(box, code)
        assert first[0] and first[1] == torch.backends.cpu.get_cpu_capability()  # it looks at /sys
        assert first[2] == 1 and first == second


@LEVEL
def test_one_submission_only(level: str, tmp_path: Path) -> None:
    with open_box(level, tmp_path / "in") as box:
        with pytest.raises(RuntimeError, match="used already"):
            box.assign(tmp_path / "in" / "submission")
        turn = box.turn(ROOMY, role="agent")
        with pytest.raises(RuntimeError, match="not over"):
            box.turn(ROOMY, role="agent")
        turn.end()
    with pytest.raises(RuntimeError):
        box.turn(ROOMY, role="agent")
    box.close()


def test_submission_comes_first(tmp_path: Path) -> None:
    with Box("unsandboxed") as box, pytest.raises(RuntimeError, match="assign"):
        box.turn(ROOMY, role="agent")


def test_regular_files_alone_are_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "deep").mkdir(parents=True)
    target.mkdir()
    (source / "agent.py").write_text("x")
    (source / "deep" / "w.bin").write_bytes(b"y")
    (source / "deep" / "w.bin").chmod(0o4777)
    (source / "link").symlink_to("/etc/passwd")
    (source / "folder").symlink_to("/etc")
    os.mkfifo(source / "fifo")
    launch.copy(source, target)
    assert sorted(str(p.relative_to(target)) for p in target.rglob("*")) == ["agent.py", "deep", "deep/w.bin"]
    assert stat.S_IMODE((target / "deep" / "w.bin").stat().st_mode) == 0o644


@LEVEL
def test_closing_kills_everybody_and_leaves_nothing(level: str, tmp_path: Path) -> None:
    box = open_box(level, tmp_path / "in")
    box.wait()
    turn = box.turn(ROOMY, role="agent")
    root, home, slot = box._root, box._home, box._slot
    assert len(alive_below(root)) >= 1
    box.close()
    assert alive_below(root) == [] and not home.exists()
    assert turn.end().reason == ""
    assert slot is None or [p for p in watchdog.everybody() if inmates.user(p) == slot.uid] == []


@LEVEL
def test_dead_zygote_is_the_end_of_the_turn_and_is_replaced(level: str, tmp_path: Path) -> None:
    with open_box(level, tmp_path / "in") as box:
        turn = box.turn(ROOMY, role="agent")
        root = box._root
        os.kill(root, signal.SIGKILL)
        ended = turn.end()
        assert ended.reason in ("exited", "") and alive_below(root) == []
        assert ask(box, "tell(1)") == 1 and box._root != root


@LEVEL
def test_strays_of_a_dead_zygote_are_killed(level: str, tmp_path: Path) -> None:
    if level == "unsandboxed":
        pytest.skip("nothing marks its processes")
    mark = f"advgym-stray-{os.getpid()}"
    code = f'''
import os, sys, time
for i in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, ["{mark}", "-c", "import time; time.sleep(600)"])
        os._exit(0)
tell(1)
time.sleep(600)
'''

    def strays() -> list[int]:
        found = []
        for pid in watchdog.everybody():
            try:
                if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
                    found.append(pid)
            except OSError:
                pass
        return found

    with open_box(level, tmp_path / "in") as box:
        turn = box.turn(ROOMY, role="agent")
        turn.sock.sendall(struct.pack("<I", len(code)) + code.encode())
        turn.sock.recv(5)
        until(lambda: len(strays()) == 3)
        os.kill(box._root, signal.SIGKILL)
        turn.end()
        until(lambda: not strays())


@LEVEL
@pytest.mark.parametrize("busy", [False, True])
def test_box_dies_with_a_host_that_is_killed(level: str, busy: bool, tmp_path: Path) -> None:
    need(level)
    (tmp_path / "sandbox_host.py").write_text(f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from sandbox_play import open_box, play, ROOMY
import threading
box = open_box({level!r}, Path({str(tmp_path / "in")!r}))
box.wait()
print(box._root, box._process.pid, box._home, flush=True)
code = "import os, time\\nfor i in range(3):\\n    if os.fork() == 0: os.setsid(); os.fork(); break\\ntime.sleep(600)"
threading.Thread(target=lambda: {"play(box, code)" if busy else "None"}).start()
time.sleep(600)
""")
    host = subprocess.Popen([sys.executable, str(tmp_path / "sandbox_host.py")], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    root, process, home = host.stdout.readline().split()
    until(lambda: len(alive_below(int(root))) == (8 if busy else 1))
    tree = alive_below(int(root))
    host.kill()
    host.wait()
    host.stdout.close()
    until(lambda: not [p for p in [*tree, int(process)] if (found := watchdog.read(p)) and found.state not in "ZX"])
    wipe.wipe(home, time.monotonic() + 60)
    os.rmdir(home)


def test_failing_entry_is_told(tmp_path: Path) -> None:
    with Box("unsandboxed", entry="advgym.nowhere:enter") as box, pytest.raises(SandboxError, match="nowhere"):
        box.wait()


@LEVEL
def test_many_turns_leak_nothing(level: str, tmp_path: Path) -> None:
    with open_box(level, tmp_path / "in") as box:
        ask(box, "tell(1)")
        before = len(os.listdir("/proc/self/fd")), threading.active_count()
        for i in range(20):
            assert ask(box, f"tell({i})") == i
        assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    with open_box(level, tmp_path / "in"):
        pass


@LEVEL
def test_large_messages_pass_both_ways(level: str, tmp_path: Path) -> None:
    code = """
data = b""
while len(data) < 8 << 20: data += sock.recv(1 << 20)
sock.sendall(data[::-1])
"""
    sent = os.urandom(8 << 20)
    with open_box(level, tmp_path / "in") as box:
        turn = box.turn(ROOMY, role="agent")
        turn.sock.sendall(struct.pack("<I", len(code)) + code.encode() + sent)
        got = b""
        while chunk := turn.sock.recv(1 << 20):
            got += chunk
        assert turn.end().reason == "" and got == sent[::-1]


# -- spares ----------------------------------------------------------------------------------------------------
def test_spares_are_warm_and_their_own(tmp_path: Path) -> None:
    (tmp_path / "entry.py").write_text(ENTRY)
    options = {"binds": [tmp_path / "entry.py"], "entry": f"{tmp_path / 'entry.py'}:enter"}
    with Spares(2, **options) as spares:
        boxes = [spares.take() for _ in range(3)]
        assert len({b._root for b in boxes}) == 3 and all(b._warm for b in boxes)
        assert {b.level for b in boxes} == {sandbox.best_level()}
        for box in boxes:
            box.close()
    with pytest.raises(RuntimeError, match="closed"):
        spares.take()


def test_spares_that_cannot_start_say_so() -> None:
    with Spares(1, "unsandboxed", entry="advgym.nowhere:enter") as spares, pytest.raises(SandboxError, match="nowhere"):
        spares.take()


# -- the ladder ------------------------------------------------------------------------------------------------
def test_ladder_is_probed() -> None:
    assert sandbox.best_level() == next(level for level in LEVELS if level not in sandbox.missing())
    assert "unsandboxed" not in sandbox.missing()
    with pytest.raises(AdvgymError, match="did you mean 'landlock'"):
        Box("landlok")


def fake_bwrap(folder: Path, said: str) -> Path:
    (folder / "bwrap").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    (folder / "bwrap").chmod(0o755)
    return folder


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for cached in (ladder.missing, bwrap.program, bwrap.version):
        monkeypatch.setattr(sys.modules[cached.__module__], cached.__name__, cached.__wrapped__)


def test_missing_bubblewrap_is_explained(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt-get install bubblewrap" in ladder.missing()["bwrap"]
    with pytest.raises(SandboxError, match="'bwrap' is missing here"):
        Box("bwrap")
    assert ladder.best_level() in ("landlock", "unsandboxed")


def test_forbidden_user_namespaces_are_explained(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(fake_bwrap(tmp_path, "bwrap: setting up uid map: Permission denied")))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = ladder.missing()["bwrap"]
    assert "AppArmor" in said and "userns," in said and "uid map: Permission denied" in said


def test_kernel_without_landlock(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder.lockdown, "landlock_version", lambda: 0)
    assert "5.13" in ladder.missing()["landlock"]


def test_other_systems(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert set(ladder.missing()) == {"bwrap", "landlock"} and ladder.best_level() == "unsandboxed"


# -- parts -----------------------------------------------------------------------------------------------------
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives away user ids")
def test_slots_are_taken_once() -> None:
    one, two = slots.Slot(), slots.Slot()
    assert one.uid != two.uid and min(one.uid, two.uid) >= slots.FIRST
    code = "from advgym.leaderboards.sandbox.slots import Slot; print(Slot().uid)"
    other = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert other not in (one.uid, two.uid)
    for slot in (one, two):
        slot.release()
    again = slots.Slot()
    assert again.uid <= max(one.uid, two.uid)
    again.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives away user ids")
def test_leftovers_are_found_by_their_id(tmp_path: Path) -> None:
    for name, gid in (("advgym-box-a", 64999), ("advgym-box-b", 64998), ("other", 64999)):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, 0, gid)
    (tmp_path / "advgym-box-link").symlink_to(tmp_path / "other")
    assert slots.leftovers(64999, tmp_path) == [tmp_path / "advgym-box-a"]


def test_devices_are_bound_after_the_new_dev() -> None:
    """The order that a GPU needs; there is none to try it on here."""
    options = bwrap.root_options([], None, gpu=True)
    dev = options.index("--dev")
    nvidia = [i for i, o in enumerate(options) if o == "--dev-bind-try"]
    assert nvidia and min(nvidia) > dev and options[options.index("/sys") - 1 :][:3] == ["--ro-bind", "/sys", "/sys"]
    assert not [o for o in bwrap.root_options([], None) if "nvidia" in o]
    rules = launch.rules(Path("/s"), Path("/t"), [], gpu=True)
    assert ("device", "/dev/nvidia0") in rules and ("read", "/sys") in rules
    assert not [p for _, p in launch.rules(Path("/s"), Path("/t"), [], gpu=False) if "nvidia" in p]


def test_checkout_itself_is_not_in_the_runtime() -> None:
    assert not any(Path(__file__).is_relative_to(p) for p in paths.runtime())


def test_others_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    tmp_path.chmod(0o755), folder.chmod(0o755), folder.parent.chmod(0o700)
    assert paths.others_can_read([folder], parents=False)
    assert not paths.others_can_read([folder], parents=True)


def test_output_keeps_both_ends() -> None:
    for pieces in ([b"a" * 5000, b"b" * 5000], [bytes([i % 256]) * 7 for i in range(3000)], [b"short"], []):
        output, whole = Output(), b"".join(pieces)
        for piece in pieces:
            output.add(piece)
        assert output.first == whole[:KEPT] and output.size == len(whole)
        assert output.last == whole[KEPT:][-KEPT:]


def test_cpu_is_not_counted_twice() -> None:
    def process(pid: int, parent: int, own: float, children: float) -> watchdog.Process:
        return watchdog.Process(pid, parent, "R", own, children, 1, 10.0)

    table = {p.pid: p for p in [process(5, 1, 9, 3), process(7, 5, 1, 2), process(6, 7, 4, 0), process(8, 1, 99, 99)]}
    tree = watchdog.below(table, 5)
    assert [p.pid for p in tree] == [5, 7, 6]
    used = watchdog.usage(tree, process(5, 1, 9, 1))
    assert used == watchdog.Usage(cpu_s=2 + 3 + 4, memory_mb=20, tasks=2)


def test_wipe_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    inside = tmp_path / "inside"
    (inside / "a" / "b").mkdir(parents=True)
    (inside / "a" / "link").symlink_to(outside)
    (inside / "link").symlink_to(outside)
    assert wipe.wipe(str(inside), time.monotonic() + 5) and os.listdir(inside) == []
    assert (outside / "kept").read_text() == "x"
    (tmp_path / "way").symlink_to(outside)
    assert not wipe.wipe(str(tmp_path / "way"), time.monotonic() + 5)


def test_limits_are_the_boards(tmp_path: Path) -> None:
    with open_box("unsandboxed", tmp_path / "in") as box:
        said = ask(box, "import resource as r; tell([r.getrlimit(r.RLIMIT_CPU), r.getrlimit(r.RLIMIT_NOFILE)])")
        assert said == [[21, 21], [256, 256]]
        _, ended = play(box, "import time; time.sleep(9)", Limits(wall_s=0.3))
        assert ended.reason == "wall-limit"
