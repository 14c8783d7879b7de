"""Cheats that reach for what is not theirs: files, memory, network, kernel, the next run. Each on a honeypot."""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from pathlib import Path

import pytest
from cheating import HONEYPOT, NOISE, SOFT, Place, each, opened, place  # noqa: F401

from advgym.leaderboards.runs.evaluate import Failure

ONE_SHARD = HONEYPOT.replace("samples = 6", "samples = 3")


def play_honest(place: Place) -> str:  # noqa: F811
    """The id of an honest entry: the hash of all its scores, moves and rows."""
    found = place.play(NOISE, SOFT.replace("samples = 6", "samples = 3"))
    assert found.entry is not None and found.gain > 0
    return found.entry.id


@cache
def honest(level: str) -> str:
    """That id, before any cheat."""
    return play_honest(opened(level))


# -- row 1 -----------------------------------------------------------------------------------------------------
READER = """
import pathlib, re
RUNTIME = (sys.prefix, sys.base_prefix, "/usr", "/sys", "/proc", "/dev")
WANTED = re.compile(("advgym" + "-" + "canary" + "-").encode() + rb"[0-9a-f]{32}")
def attack(env, *, seed):
    opened, found = [], [k for k, v in os.environ.items() if WANTED.search(v.encode())]
    for path in PLACES:
        for part in (path, *map(str, pathlib.Path(path).parents)):
            try:
                os.listdir(part) if os.path.isdir(part) else open(part, "rb").read(1)
                opened.append(part)
            except OSError:
                pass
    seen = set()
    for top in ("/", os.getcwd(), "/tmp", "/dev/shm", "/run", "/var", "/home", "/root", "/mnt", "/work"):
        for folder, below, files in os.walk(top):
            if folder in seen or folder in RUNTIME or "/lib" in folder:
                below[:] = []
                continue
            seen.add(folder)
            for name in files:
                try:
                    fd = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NONBLOCK)
                except OSError:
                    continue
                try:
                    data = os.read(fd, 1 << 16)
                except OSError:
                    continue
                finally:
                    os.close(fd)
                if WANTED.search(data):
                    found.append(os.path.join(folder, name))
    tell(opened=sorted(set(opened) - {"/"}), found=found)
"""


def test_planted_secrets_are_out_of_reach(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Labels, the server's secrets, its database, the data folder, the checkout, the environment of the host."""
    monkeypatch.setenv("ADVGYM_DATA", str(place.folder / "data"))
    data = os.environ["ADVGYM_DATA"]
    checkout = Path(__file__).resolve()
    places = [*map(str, place.planted), data, str(checkout), str(checkout.parents[2] / "pyproject.toml"),
              "/etc/passwd", "/root/.ssh/id_rsa", f"/proc/{os.getpid()}/environ", f"/proc/{os.getpid()}/mem",
              f"/proc/{os.getpid()}/root{place.planted[0]}"]  # fmt: skip
    found = place.play(f"PLACES = {places!r}\n" + READER, ONE_SHARD)
    assert found.gain == 0 and len(found.said) == 1, (found.failure, found.log)
    runtime = [Path(sys.prefix), *Path(sys.prefix).parents, *Path(sys.base_prefix).parents]
    allowed = {*map(str, runtime), "/proc", "/tmp", "/etc", "/root"}  # folders that the sandbox made, or lists
    for said in found.said:
        assert said["found"] == []
        assert set(said["opened"]) <= allowed, said["opened"]
    assert place.canary not in found.log
    everything = repr(found.entry) + repr(found.rows)
    assert place.canary not in everything


# -- row 2 -----------------------------------------------------------------------------------------------------
PATCHER = """
import gc, inspect
def attack(env, *, seed):
    import advgym.judge.verdict, advgym.judge.run, advgym.judge.results
    import advgym.core.goals, advgym.core.meters
    import advgym.leaderboards.boundary.referee as referee
    yes = lambda *a, **k: True
    for module in list(sys.modules.values()):
        for name in ("judge", "won", "score_task", "rate_interval", "settle", "SUCCESS", "headline_attack"):
            if getattr(module, "__name__", "").startswith("advgym") and hasattr(module, name):
                setattr(module, name, yes)
    env.reset(seed=seed)
    book = env._book
    book.potential = torch.full_like(book.potential, 3.0)
    book.queries_left = torch.full_like(book.queries_left, 10**6)
    book.held = torch.ones_like(book.held)
    book.first = torch.full_like(book.first, 10**6)
    env._batch.x.add_(0.5)
    labels = [o for o in gc.get_objects() if type(o).__name__.endswith("Batch") and "labels" in o.__dict__]
    names = [type(o).__name__ for o in gc.get_objects()]
    victims = [n for n in names if n in ("Victim", "Stage", "AttackEnv", "Session", "Runner", "Task")]
    victims += [type(o).__name__ for o in gc.get_objects() if isinstance(o, torch.nn.Module)]
    frames, frame = [], inspect.currentframe()
    while frame is not None:
        frames.append(frame.f_code.co_filename)
        frame = frame.f_back
    env.step(torch.ones(env.num_envs, *env.shape))
    tell(labels=len(labels), victims=victims, frames=[os.path.basename(f) for f in frames])
"""


def test_the_scorer_is_in_another_process(place: Place) -> None:  # noqa: F811
    found = place.play(PATCHER)
    assert found.entry is not None and found.gain == 0, found.log
    for said in found.said:
        assert said["labels"] == 0 and said["victims"] == []
        assert not {"referee.py", "evaluate.py", "shards.py", "contestant.py", "run.py"} & set(said["frames"])
    assert all(s.queries == 1 and not s.success and s.distance <= 1e-4 for s in found.samples)


# -- row 3 -----------------------------------------------------------------------------------------------------
WRITER = """
import atexit
SCORE = json.dumps({"score": 1.0, "success_rate": 1.0, "status": "scored"})
def spread():
    for folder in (".", "/tmp", "/dev/shm", os.path.dirname(__file__), "/output", "/app/output", os.environ["HOME"]):
        for name in ("scores.json", "score.json", "scores.txt", "result.json", "entry.json"):
            try:
                with open(os.path.join(folder, name), "w") as file:
                    file.write(SCORE)
            except OSError:
                pass
    print(SCORE)
    print(SCORE, file=sys.stderr)
atexit.register(spread)
def attack(env, *, seed):
    spread()
    WAY
"""


@each(returns="pass", leaves="sys.exit(0)", exits="os._exit(0)", closes="env._channel.sock.close()",
      says_done_twice="""
    from advgym.leaderboards.boundary import messages as m
    env._channel.send(m.Done())
    env._channel.send(m.Done())""")  # fmt: skip
def test_a_score_of_ones_own_is_text(place: Place, code: str) -> None:  # noqa: F811
    found = place.play(WRITER.replace("WAY", code))
    assert found.gain == 0 and not any(s.success for s in found.samples)
    assert '"score": 1.0' in found.log  # it did say so, and that is all that became of it
    if found.entry is None:
        assert isinstance(found.failure, Failure) and found.failure.code in ("exited", "crashed", "malformed")


# -- row 14 ----------------------------------------------------------------------------------------------------
MEMORY = """
import glob, subprocess, time
import advgym
PLACES = (".", "/tmp", "/dev/shm", "/scratch", "/var/tmp", os.path.dirname(__file__), os.environ["HOME"])
def look():
    left = [p for place in PLACES for p in glob.glob(place + "/*left*") + glob.glob(place + "/.*left*")]
    names = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            names.append(open(path).read())
        except OSError:
            pass
    return left, [n for n in names if "left-behind" in n], getattr(advgym, "left", None), getattr(torch, "left", None)
def attack(env, *, seed):
    tell(seen=look())
    advgym.left = torch.left = "me"
    for place in PLACES:
        for name in ("left", ".left"):
            try:
                open(os.path.join(place, name), "w").write("me")
            except OSError:
                pass
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 64)
            time.sleep(600)
        os._exit(0)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "left-behind"], start_new_session=True)
    try:
        with open(__file__, "a") as file:
            file.write("# me")
    except OSError:
        pass
"""


def test_nothing_is_carried_to_the_next_shard_or_submission(place: Place) -> None:  # noqa: F811
    nothing = {"seen": [[], [], None, None]}
    first = place.play(MEMORY)
    assert first.gain == 0 and first.said == [nothing] * 2, first.log  # two shards
    assert place.play(MEMORY).said == [nothing] * 2


# -- row 24 ----------------------------------------------------------------------------------------------------
CALLER = """
import socket, subprocess, urllib.request
BASH = f"echo x > /dev/tcp/127.0.0.1/{PORT}"
def attempt(name, function):
    try:
        function()
        return name
    except BaseException:
        return ""
def attack(env, *, seed):
    ways = [attempt(f"socket {f} {k}", lambda: socket.socket(f, k)) for f in (1, 2, 10, 16, 17) for k in (1, 2, 3)]
    ways += [attempt("tcp", lambda: socket.create_connection(("127.0.0.1", PORT), 1)),
             attempt("http", lambda: urllib.request.urlopen(f"http://127.0.0.1:{PORT}/?sample=0", timeout=1)),
             attempt("names", lambda: socket.getaddrinfo("example.org", 80)),
             attempt("bash", lambda: subprocess.run(["bash", "-c", BASH], check=True, timeout=5)),
             attempt("unix", lambda: socket.socketpair()[0].connect("\\0advgym-cheats"))]
    tell(ways=[w for w in ways if w])
"""


def test_nobody_can_be_called(place: Place) -> None:  # noqa: F811
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        found = place.play(f"PORT = {server.getsockname()[1]}\n" + CALLER)
        assert found.gain == 0 and found.said == [{"ways": []}] * 2, found.log
        server.setblocking(False)  # whoever called is in the queue
        with pytest.raises(BlockingIOError):
            server.accept()


# -- row 25 ----------------------------------------------------------------------------------------------------
BREAKER = """
import ctypes, signal, subprocess, time
libc = ctypes.CDLL(None, use_errno=True)
def attack(env, *, seed):
    WAY
    time.sleep(600)
"""
WAYS = {
    "kill_everybody": """
    try:
        os.kill(HOST, 9)
        tell(reached=[3])
    except OSError:
        os.kill(-1, 9)""",
    "fork_bomb": "\n    while True:\n        try: os.fork()\n        except OSError: time.sleep(0.01)",
    "threads": "import threading\n    [threading.Thread(target=time.sleep, args=(600,)).start() for _ in range(200)]",
    "memory": "x = []\n    while True: x.append(bytearray(os.urandom(1 << 20) * 16))",
    "memory_of_children": """
    for _ in range(4):
        if os.fork() == 0:
            x = bytearray(os.urandom(1 << 20)) * 400
            time.sleep(600)""",
    "scratch": "\n    for i in range(10**6):\n        with open(f'f{i}', 'wb') as f: f.write(bytes(1 << 20) * 8)",
    "files": "\n    for i in range(10**6): open(f'{i}', 'w').close()",
    "output": "\n    while True: os.write(2, b'x' * (1 << 20))",
    "spin": "\n    while True: pass",
    "stop_oneself": "os.kill(os.getpid(), signal.SIGSTOP)",
    "abort": "os.abort()",
    "null_pointer": "ctypes.string_at(0)",
    "silence": "pass",
    "trace": """
    tell(reached=[2]) if 0 in (libc.ptrace(16, HOST, 0, 0), libc.ptrace(16, os.getppid(), 0, 0)) else None
    os._exit(3)""",
    "namespaces": """
    tell(reached=[0]) if 0 in (libc.unshare(0x10000000), libc.unshare(0x20000), libc.unshare(0x40000000)) else None
    tell(reached=[1]) if libc.mount(b"x", b"/tmp", b"tmpfs", 0, 0) == 0 else None
    os._exit(3)""",
}
LIMITED = ("process-limit", "memory-limit", "output-limit", "cpu-limit", "wall-limit", "exited", "crashed")


@each(**WAYS)
def test_who_breaks_out_breaks_himself_alone(place: Place, code: str) -> None:  # noqa: F811
    """Each ends with a reason; the host lives, and the next submission's entry is what it was."""
    before = honest(place.level)
    limits = {"cpu_s": 0.5, "wall_s": 1, "memory_mb": 700, "processes": 12}
    found = place.play(f"HOST = {os.getpid()}\n" + BREAKER.replace("WAY", code), ONE_SHARD, **limits)
    assert found.entry is None and found.failure is not None and found.failure.code in LIMITED, found.log
    assert not any("reached" in s for s in found.said)
    assert play_honest(place) == before


LOOKER = """
import glob
def read(path):
    try:
        return open(path, errors="replace").read()
    except OSError:
        return ""
def attack(env, *, seed):
    paths = [f"/proc/{p}/{f}" for p in (1, "self", os.getppid()) for f in ("environ", "cmdline", "mountinfo", "maps")]
    text = "".join(map(read, paths + glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline")))
    status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines() if ":" in line)
    tell(canary=("advgym-" + "canary") in text, args="ro-bind" in text, seccomp=status["Seccomp"].strip(),
         uid=os.getuid(), privileges=status["NoNewPrivs"].strip(), rights=int(status["CapEff"], 16) & ~4,
         fds=sorted(map(int, os.listdir("/proc/self/fd"))))
"""


def test_nothing_of_the_host_is_to_be_seen(place: Place) -> None:  # noqa: F811
    found = place.play(LOOKER)
    assert found.gain == 0 and len(found.said) == 2, found.log
    for said in found.said:
        assert not said["canary"] and not said["args"]
        # capability 2 reads files and nothing else; Landlock then says which, where Python's own folder is closed
        assert said["seccomp"] == "2" and said["privileges"] == "1" and said["rights"] == 0 and said["uid"] != 0
        assert set(said["fds"]) <= {0, 1, 2, 3, 4}
