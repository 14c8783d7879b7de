"""What a submission may not reach: files, network, processes, kernel. Each trap at each level."""

from __future__ import annotations

import errno
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_play import CONFINED, OLD, ROOMY, ask, open_box, play

from advgym.leaderboards.sandbox import Box, watchdog

SECRET = "swordfish-31337"
CALLS = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "OK"
def attempt(function, *args):
    try:
        return function(*args) or "OK"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
"""


@pytest.fixture(scope="module", params=CONFINED)
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    os.environ["SECRET_TOKEN"] = SECRET  # the evaluator's own: no inside may find it
    try:
        with open_box(request.param, tmp_path_factory.mktemp("box") / "in") as made:
            made.name = request.param
            yield made
    finally:
        del os.environ["SECRET_TOKEN"]


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A file of the evaluator that anyone on this machine may read and write."""
    path = tmp_path / "labels.txt"
    path.write_text(SECRET)
    path.chmod(0o666)
    return path


# -- files -----------------------------------------------------------------------------------------------------
def test_evaluators_files_cannot_be_read(box: Box, private: Path) -> None:
    places = [str(private), "/etc/passwd", "/etc/shadow", "/etc/hosts", str(Path(__file__)), "/root/.ssh/id_rsa"]
    said = ask(box, CALLS + f"tell([attempt(lambda: open(p).read(1)) for p in {places}])")
    assert set(said) <= {"EACCES", "ENOENT"}


def test_checkout_beyond_the_code_cannot_be_read(box: Box) -> None:
    root = Path(__file__).parents[2]
    said = ask(box, CALLS + f"tell([attempt(os.listdir, p) for p in ({str(root)!r}, {str(root / 'tests')!r})])")
    assert said[1] in ("EACCES", "ENOENT")
    assert said[0] == "EACCES" or set(said[0]) <= {".venv", "advgym", "envs", "agents", "leaderboards"}


def test_minimal_root(box: Box) -> None:
    if box.level != "bwrap":
        assert ask(box, CALLS + "tell(attempt(os.listdir, '/'))") == "EACCES"
        return
    seen = set(ask(box, "import os; tell(os.listdir('/'))"))
    system = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "sys"}
    own = {"proc", "dev", "tmp", "scratch", "submission"}
    runtime = {Path(p).parts[1] for p in (sys.base_prefix, sys.prefix, __file__)}
    assert seen <= system | own | runtime
    assert {"proc", "dev", "scratch", "submission"} <= seen


def test_only_scratch_can_be_written(box: Box, private: Path) -> None:
    places = ["/x", "/usr/x", "/etc/x", "/dev/x", str(private), str(private.parent / "x"), os.path.expanduser("~/x")]
    code = (
        CALLS
        + f"""
places = {places} + [folder + "/x", folder + "/agent.py", {sys.prefix!r} + "/x"]
tell([attempt(lambda: open(p, "w").close()) for p in places])
"""
    )
    assert set(ask(box, code)) <= {"EACCES", "ENOENT", "EROFS", "EPERM"}
    assert private.read_text() == SECRET
    assert ask(box, "import tempfile; f = tempfile.NamedTemporaryFile(); f.write(b'x'); f.flush(); tell(1)") == 1


def test_files_of_the_same_user_cannot_be_changed(box: Box, private: Path) -> None:
    private.chmod(0o600)
    code = (
        CALLS
        + f"""
import shutil
p = {str(private)!r}
tell([attempt(os.chmod, p, 0o777), attempt(os.truncate, p, 0), attempt(os.utime, p, (1, 1)),
      attempt(os.setxattr, p, "user.x", b"1"), attempt(os.link, p, "l"), attempt(os.rename, p, "r"),
      attempt(os.unlink, p), attempt(os.symlink, p, "s") and attempt(lambda: open("s").read()),
      attempt(lambda: os.close(os.open(p, os.O_RDONLY | os.O_TRUNC)))])
"""
    )
    assert set(ask(box, code)) <= {"EACCES", "ENOENT", "EROFS", "EPERM", "EXDEV"}
    assert private.read_text() == SECRET and private.stat().st_mode & 0o777 == 0o600


def test_runtime_cannot_be_changed_through_a_descriptor(box: Box) -> None:
    before = os.stat(sys.prefix + "/pyvenv.cfg").st_mode
    code = (
        CALLS
        + f"""
fd = os.open({sys.prefix!r} + "/pyvenv.cfg", os.O_RDONLY)
tell([attempt(os.fchmod, fd, 0o666), attempt(os.fchown, fd, os.getuid(), -1), attempt(os.utime, fd, (1, 1))])
"""
    )
    assert set(ask(box, code)) <= {"EPERM", "EROFS"}
    assert os.stat(sys.prefix + "/pyvenv.cfg").st_mode == before


def test_submission_is_read_only_and_without_links(tmp_path: Path, box: Box) -> None:
    said = ask(box, CALLS + "tell([sorted(os.listdir(folder)), attempt(os.unlink, folder + '/agent.py')])")
    assert said[0] == ["agent.py"] and said[1] in ("EACCES", "EROFS", "EPERM")


def test_file_handles(box: Box) -> None:
    number = {"x86_64": (303, 304), "aarch64": (264, 265)}[platform.machine()]
    said = ask(
        box, CALLS + f"tell([call({number[0]}, -100, b'/', b'x' * 200, b'x' * 8, 0), call({number[1]}, 3, b'', 0)])"
    )
    assert said == ["EPERM", "EPERM"]


# -- the evaluator's memory, environment, descriptors ----------------------------------------------------------
def test_environment_of_nobody_holds_a_secret(box: Box) -> None:
    code = f"""
import glob, os
found = [repr(dict(os.environ))]
for path in glob.glob("/proc/[0-9]*/*") + glob.glob("/proc/self/task/*/environ") + {[f"/proc/{os.getpid()}/environ"]}:
    if path.endswith(("environ", "cmdline", "comm")):
        try:
            found.append(open(path, errors="replace").read())
        except OSError:
            pass
tell(found)
"""
    said = "".join(ask(box, code))
    assert SECRET not in said and "SECRET_TOKEN" not in said and "ro-bind" not in said


def test_environment_is_ours(box: Box) -> None:
    said = ask(box, "import os; tell(dict(os.environ))")
    assert set(said) - {"PWD", "LC_CTYPE"} == {
        *("PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
        *("MKL_NUM_THREADS", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE"),
    }


def test_no_descriptor_leaks(box: Box) -> None:
    leak, other = os.pipe()
    os.set_inheritable(leak, True)
    try:
        fds, null = ask(
            box, "import os; tell([sorted(map(int, os.listdir('/proc/self/fd'))), os.readlink('/proc/self/fd/0')])"
        )
    finally:
        os.close(leak)
        os.close(other)
    assert fds in ([0, 1, 2, 3], [0, 1, 2, 3, 4])  # the last is the listing's own
    assert null == "/dev/null"


def test_no_descriptor_leaks_from_a_careless_host(box: Box, tmp_path: Path) -> None:
    """A host that starts the box while it holds inheritable descriptors."""
    leaks = [os.open(__file__, os.O_RDONLY) for _ in range(8)]
    for fd in leaks:
        os.set_inheritable(fd, True)
    try:
        with open_box(box.name, tmp_path / "in") as careless:
            said = ask(
                careless,
                """
import os
fds = [f"/proc/self/fd/{f}" for f in os.listdir("/proc/self/fd")]
tell([os.readlink(f) for f in fds if os.path.lexists(f)])
""",
            )
    finally:
        for fd in leaks:
            os.close(fd)
    assert not [s for s in said if "test_sandbox" in s]


def test_zygote_cannot_be_looked_into(box: Box) -> None:
    code = (
        CALLS
        + """
p = f"/proc/{os.getppid()}"
tell([attempt(lambda: open(p + "/mem", "rb").read(1) and None), attempt(lambda: open(p + "/environ").read() and None),
      attempt(lambda: open(p + "/maps").read() and None), attempt(os.listdir, p + "/fd")])
"""
    )
    assert set(ask(box, code)) <= {"EACCES", "EPERM", "ENOENT"}


def test_hosts_processes_are_out_of_sight(box: Box) -> None:
    said = ask(box, CALLS + f"tell(attempt(lambda: open('/proc/{os.getpid()}/cmdline').read()))")
    assert said in ("ENOENT", "EACCES")
    if box.level == "bwrap":
        assert ask(box, "import os; tell(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))")[0] == 1
        assert len(ask(box, "import os; tell([p for p in os.listdir('/proc') if p.isdigit()])")) == 2


# -- network ---------------------------------------------------------------------------------------------------
def test_no_network(box: Box) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    code = f"""
import socket
said = []
for family, kind in ((2, 1), (2, 2), (10, 1), (1, 1), (1, 2), (16, 3), (17, 3)):
    try:
        socket.socket(family, kind); said.append("open")
    except PermissionError:
        said.append("refused")
try:
    socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 1); said.append("connected")
except OSError:
    said.append("refused")
tell(said)
"""
    try:
        assert set(ask(box, code)) == {"refused"}
    finally:
        server.close()


def test_socketpair_is_no_way_out(box: Box, tmp_path: Path) -> None:
    """A datagram socket needs no connection: it could send to any socket file and to any abstract name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0advgym-test-dgram")
        server.setblocking(False)
        code = (
            CALLS
            + r"""
import socket
said = [attempt(lambda: socket.socketpair(1, kind) and "OK") for kind in (1, 5, 2, 2 | 0o4000, 3)]
a, b = socket.socketpair()
said.append(attempt(a.connect, "\0advgym-test-dgram"))
said.append(attempt(a.bind, "\0mine"))
said.append(attempt(lambda: a.sendto(b"x", "\0advgym-test-dgram") and "sent"))
tell(said)
"""
        )
        said = ask(box, code)
        assert said[:5] == ["OK", "OK", "EPERM", "EPERM", "EPERM"]
        assert said[5] == said[6] == "EPERM" and said[7] in ("EISCONN", "EOPNOTSUPP")
        with pytest.raises(BlockingIOError):
            server.recv(10)


# -- processes -------------------------------------------------------------------------------------------------
def test_nobody_outside_can_be_signalled(box: Box) -> None:
    bystander = subprocess.Popen(["sleep", "3600"])
    code = (
        CALLS
        + f"""
import signal
targets = [{bystander.pid}, {os.getpid()}, {box._root}, os.getppid()]
said = [attempt(os.kill, p, s) for p in targets for s in (0, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL)]
said += [attempt(signal.pidfd_send_signal, fd, 9) for fd in [os.pidfd_open(os.getppid())]]
tell(said)
"""
    )
    try:
        said = ask(box, code)
        assert bystander.poll() is None
        if box.level == "bwrap":  # inside, 1 is the zygote, which no signal from within reaches
            assert set(said[:12]) <= {"ESRCH", "OK"}
        else:
            assert set(said) == {"EPERM"}
        assert ask(box, "tell(1)") == 1 and not box._stale
    finally:
        bystander.kill()
        bystander.wait()


def test_killing_everybody_ends_oneself_alone(box: Box) -> None:
    bystander = subprocess.Popen(["sleep", "3600"])
    root = box._root
    try:
        told, ended = play(box, "import os; tell(1); os.kill(-1, 9); os.kill(0, 9)")
        assert told == [1] and ended.reason in ("exited", "")
        assert bystander.poll() is None
        assert ask(box, "tell(2)") == 2 and box._root == root  # the same zygote goes on
    finally:
        bystander.kill()
        bystander.wait()


def test_nobody_outside_can_be_slowed_or_limited(box: Box) -> None:
    number = {"x86_64": 302, "aarch64": 261}[platform.machine()]
    code = (
        CALLS
        + f"""
import fcntl, resource, struct, socket
said = []
for p in (os.getppid(), {os.getpid()}):
    said += [call({number}, p, 0, struct.pack("QQ", 1, 1), None), attempt(os.sched_setaffinity, p, {{0}}),
             attempt(os.setpriority, os.PRIO_PROCESS, p, 19),
             attempt(os.sched_setscheduler, p, os.SCHED_IDLE, os.sched_param(0))]
a, b = socket.socketpair()
said += [attempt(fcntl.fcntl, a, fcntl.F_SETOWN, os.getppid()), attempt(fcntl.fcntl, a, 10, 9),
         attempt(fcntl.ioctl, a, 0x8901, struct.pack("i", os.getppid()))]
tell(said)
"""
    )
    assert set(ask(box, code)) == {"EPERM"}


def test_no_tracing(box: Box) -> None:
    numbers = {"x86_64": (101, 310, 311, 438, 312), "aarch64": (117, 270, 271, 438, 272)}[platform.machine()]
    assert set(ask(box, CALLS + f"tell([call(n, 16, os.getppid(), 0, 0, 0, 0) for n in {numbers}])")) == {"EPERM"}


def test_whatever_is_left_behind_dies(box: Box) -> None:
    """Daemons: forked twice, in a session of their own, ignoring every signal that can be ignored."""
    code = """
import os, signal, time
read, write = os.pipe()
for i in range(5):
    if os.fork() == 0:
        os.setsid()
        for s in (1, 2, 3, 13, 15):
            signal.signal(s, signal.SIG_IGN)
        if os.fork() == 0:
            tell("daemon")
            os.write(write, b".")
            time.sleep(600)
        os._exit(0)
for i in range(5):
    os.read(read, 1)
"""
    told, ended = play(box, code)
    assert told == ["daemon"] * 5 and ended.reason == ""
    assert [p.pid for p in watchdog.below(watchdog.everybody(), box._root)[1:]] == []


def test_turn_is_over_when_the_child_is(box: Box) -> None:
    """A grandchild that holds the socket does not keep the host waiting."""
    _, ended = play(box, "import os, time\nif os.fork() == 0: time.sleep(10_000)\nos._exit(0)")
    assert ended.reason == ""


# -- the kernel ------------------------------------------------------------------------------------------------
def test_no_rights_are_left(box: Box) -> None:
    fields = ask(box, "tell(dict(l.split(':\\t') for l in open('/proc/self/status').read().splitlines()))")
    search = 1 << 2 if box.level == "landlock" and os.geteuid() == 0 else 0  # CAP_DAC_READ_SEARCH, for Python in /root
    assert int(fields["CapEff"], 16) & ~search == 0 and int(fields["CapPrm"], 16) & ~search == 0
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    assert set(fields["Uid"].split()) == {str(box._slot.uid if box._slot else os.geteuid())} - {"0"}
    assert set(fields.get("Groups", "").split()) <= {str(os.getegid()), "65534"} - {"0"}


def test_no_namespaces_and_no_mounts(box: Box) -> None:
    said = ask(
        box,
        CALLS
        + """
flags = [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]
number = {"x86_64": (272, 56, 435, 165, 161, 155, 308), "aarch64": (97, 220, 435, 40, 51, 41, 268)}[os.uname().machine]
said = [call(number[0], f) for f in flags]
for f in flags:
    result = call(number[1], f | 17, 0, 0, 0, 0)
    said.append(result)
said += [call(number[2], b"x" * 88, 88), call(number[3], b"x", b"/", b"tmpfs", 0, 0), call(number[4], b"/")]
said += [call(number[5], b"/", b"/"), call(number[6], 0, 0)]
tell(said)
""",
    )
    assert said[:14] == ["EPERM"] * 14 and said[14] == "ENOSYS" and set(said[15:]) == {"EPERM"}


@pytest.mark.parametrize(
    "names",
    [
        "memfd_create memfd_secret userfaultfd shmget semget msgget mq_open",
        "bpf perf_event_open io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl",
        "init_module finit_module kexec_load personality acct syslog swapon reboot",
        "fanotify_init inotify_init1 fsopen open_tree move_mount mount_setattr",
    ],
)
def test_calls_that_are_denied(box: Box, names: str) -> None:
    from advgym.leaderboards.sandbox.seccomp import ARCHES, calls

    column = list(ARCHES).index(platform.machine())
    numbers = [calls().denied[name][column] for name in names.split()]
    assert set(ask(box, CALLS + f"tell([call(n, 0, 0, 0, 0, 0) for n in {numbers}])")) == {"EPERM"}


def test_calls_newer_than_the_list_do_not_exist(box: Box) -> None:
    assert ask(box, CALLS + "tell([call(n, 0, 0, 0) for n in (463, 470, 999)])") == ["ENOSYS"] * 3


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other tables of calls exist on x86_64 alone")
@pytest.mark.parametrize("way", ["x32", "i386"])
def test_other_tables_of_calls_kill(box: Box, way: str) -> None:
    x32 = CALLS + "call(0x40000000 + 39); tell('alive')"
    i386 = """
import ctypes, mmap
memory = mmap.mmap(-1, 4096, prot=7)
memory.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, getpid; int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
tell("alive")
"""
    told, ended = play(box, x32 if way == "x32" else i386)
    assert told == [] and ended.reason == "exited" and "SIGSYS" in ended.detail


def test_no_devices(box: Box) -> None:
    said = ask(
        box,
        CALLS
        + """
names = ["/dev/nvidia0", "/dev/nvidiactl", "/dev/kmsg", "/dev/mem", "/dev/vda", "/dev/sda", "/dev/fuse", "/dev/kvm"]
tell([[attempt(lambda: os.close(os.open(n, os.O_RDONLY))) for n in names], open("/dev/urandom", "rb").read(4) != b"" and
     open("/dev/null", "w").write("x")])
""",
    )
    assert set(said[0]) <= {"EACCES", "ENOENT"} and said[1] == 1


def test_threads_and_subprocesses_work(box: Box) -> None:
    code = """
import subprocess, sys, threading, multiprocessing
said = []
thread = threading.Thread(target=lambda: said.append("thread")); thread.start(); thread.join()
said.append(subprocess.run(["/bin/sh", "-c", "echo $((6 * 7))"], capture_output=True, text=True).stdout.strip())
said.append(subprocess.run([sys.executable, "-c", "print(1 + 1)"], capture_output=True, text=True).stdout.strip())
tell(said)
"""
    assert ask(box, code) == ["thread", "42", "2"]


def test_no_core_dumps_and_no_execution_of_own_files(box: Box) -> None:
    code = (
        CALLS
        + """
import resource, shutil
fd = os.open("tool", os.O_WRONLY | os.O_CREAT, 0o755)
os.write(fd, b"#!/bin/sh\\necho hi\\n"); os.close(fd)
def run():
    pid = os.fork()
    if pid == 0:
        try: os.execv("./tool", ["./tool"])
        except OSError as error: os._exit(error.errno)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
tell([resource.getrlimit(resource.RLIMIT_CORE), run()])
"""
    )
    core, ran = ask(box, code)
    assert core == [0, 0]
    assert ran == (0 if box.level == "bwrap" else errno.EACCES)


# -- from one turn to the next ---------------------------------------------------------------------------------
def test_nothing_is_carried_over(box: Box) -> None:
    mark = """
import os, sys, json, tempfile
json.left = "left"
open(os.path.join(tempfile.gettempdir(), "left"), "w").write("left")
try: open("/dev/shm/left", "w").write("left")
except OSError: pass
os.mkdir("deep"); os.mkdir("deep/a"); os.symlink("/", "deep/a/link")
tell(1)
"""
    look = """
import os, json, tempfile
shm = os.listdir("/dev/shm") if os.access("/dev/shm", os.R_OK) and os.path.isdir("/scratch") else []
tell([getattr(json, "left", None), sorted(os.listdir(tempfile.gettempdir())), sorted(os.listdir(".")), shm])
"""
    ask(box, mark)
    assert ask(box, look) == [None, ["code.py"], ["code.py"], []]


def test_a_nasty_scratch_folder_is_cleared(box: Box) -> None:
    code = """
import os
for name in ("locked", "locked2"):
    os.mkdir(name); open(name + "/f", "w").close(); os.mkdir(name + "/sub")
    try: os.chmod(name + "/sub", 0); os.chmod(name, 0)
    except OSError: pass
os.mkdir("none", 0)
top = os.open(".", os.O_RDONLY)
for i in range(3000):
    os.mkdir("d" * 50); os.chdir("d" * 50)
tell(1)
"""
    root = box._root
    _, ended = play(box, code)
    assert ended.reason in ("", "output-limit")  # a folder on the host's disk is watched while it grows
    assert ask(box, "import os; tell(os.listdir('.'))") == ["code.py"]
    assert box._root == root


def test_same_draws_in_every_box(box: Box, tmp_path: Path) -> None:
    code = "import random; tell([random.random(), hash('advgym'), list({'a', 'b', 'c', 'd'})])"
    with open_box(box.name, tmp_path / "in", runtime=("random",)) as one:
        first = ask(one, code)
    with open_box(box.name, tmp_path / "in", runtime=("random",)) as two:
        assert ask(two, code) == first


def test_two_boxes_do_not_see_each_other(box: Box, tmp_path: Path) -> None:
    with open_box(box.name, tmp_path / "in") as other:
        turn = other.turn(ROOMY, role="agent")
        try:
            if box._slot is not None:
                assert other._slot is not None and other._slot.uid != box._slot.uid
            home = str(other._home)
            places = [home, home + "/submission/agent.py", home + "/scratch"]
            said = ask(
                box,
                CALLS
                + f"""
tell([attempt(lambda: open(p).read(1)) for p in {places}] + [attempt(os.listdir, p) for p in {places[::2]}]
     + [attempt(os.kill, {other._root}, 9), attempt(lambda: open("/proc/{other._root}/environ").read() and None)])
""",
            )
            assert set(said) <= {"EACCES", "ENOENT", "EPERM", "ESRCH"}
        finally:
            turn.end()


def test_old_landlock_is_what_it_says(box: Box) -> None:
    """The level stands for kernels without signal scopes: a second filter has to do it alone."""
    filters = ask(box, "tell(int(open('/proc/self/status').read().split('Seccomp_filters:')[1].split()[0]))")
    own = int(Path("/proc/self/status").read_text().split("Seccomp_filters:")[1].split()[0])
    assert filters - own == (2 if box.name == OLD else 1)
