"""Folders of jobs: kept while their owner lives, swept by the next start after `kill -9`; as root and as a user."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from as_user import home, prefix  # noqa: F401

from advgym.leaderboards.sandbox.workfolder import HELD, KINDS, WorkFolder, sweep

OWNER = """
import os, sys, time
from pathlib import Path
from advgym.leaderboards.sandbox import Box
from advgym.leaderboards.sandbox.workfolder import WorkFolder, sweep
swept = sweep()
held = [WorkFolder(kind) for kind in ("job", "rival", "intake")]
(held[0].path / "submission").mkdir()
(held[0].path / "submission" / "agent.py").write_text("x = 1")
if sys.argv[1:]:
    box = Box(sys.argv[1])
    box.wait()
print(len(swept), os.getpid(), flush=True)
time.sleep(600)
"""
ROOT = Path(__file__).resolve().parents[2]


class Owner:
    """A server's process in another program, in a temporary folder of its own."""

    def __init__(self, tmp, *arguments, command=()):
        env = {**os.environ, "TMPDIR": str(tmp), "PYTHONPATH": str(ROOT), "HOME": str(tmp)}
        command = [*command, sys.executable, "-c", OWNER, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd="/")
        self.swept, self.pid = map(int, self.process.stdout.readline().split())

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)  # what stands before it, where it is another user's, ends with it
        self.process.wait()
        self.process.stdout.close()


def left(tmp):
    return sorted(p.name for p in Path(tmp).iterdir() if "advgym-" in p.name and "sandboxes" not in p.name)


@pytest.fixture
def tmp(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_goes_with_its_owner(tmp, kind):
    with WorkFolder(kind) as path:
        (path / "deep" / "er").mkdir(parents=True)
        (path / "deep").chmod(0)
        assert path.name.startswith(f"advgym-{kind}-") and path.stat().st_mode & 0o777 == 0o700
        assert sweep() == [] and path.is_dir()
    assert left(tmp) == []


def test_a_killed_owners_folders_are_swept_and_a_living_ones_are_not(tmp):
    dead, living = Owner(tmp), Owner(tmp)
    assert (dead.swept, living.swept, len(left(tmp))) == (0, 0, 6)
    dead.kill()
    third = Owner(tmp)
    assert third.swept == 3 and len(left(tmp)) == 6
    living.kill()
    third.kill()
    assert len(sweep()) == 6 and left(tmp) == []


@pytest.mark.parametrize("level", ["bwrap", "landlock", "unsandboxed"])
def test_boxes_of_a_killed_host(tmp, level):
    from advgym.leaderboards.sandbox import missing

    if level in missing():
        pytest.skip(f"sandbox level missing: {level}")
    owner = Owner(tmp, level)
    assert any(name.startswith("advgym-box-") for name in left(tmp))
    owner.kill()
    sweep()
    assert left(tmp) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("level", ["landlock", "unsandboxed"])
def test_an_ordinary_user(home, level, monkeypatch):  # noqa: F811
    command = prefix(ROOT)
    owner = Owner(home, level, command=command)
    before = left(home)
    assert len(before) == 4
    owner.kill()
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    assert sweep() == [] and left(home) == before, "root leaves what is another's"
    again = Owner(home, level, command=command)
    assert again.swept == 4 and len(left(home)) == 4
    again.kill()


def test_what_is_not_a_jobs_folder_is_left(tmp):
    for name in ("advgym-web-1", "advgym-pg-1", "advgym-user-x", "advgym-sandboxes", "other", "advgym-job-young"):
        (tmp / name).mkdir()
    (tmp / "advgym-job-file").write_text("")
    (tmp / "advgym-job-link").symlink_to(tmp / "other")
    (tmp / ".advgym-new-young").mkdir()
    (tmp / ".advgym-new-old").mkdir()
    os.utime(tmp / ".advgym-new-old", (1, 1))  # killed before it had its lock
    assert [p.name for p in sweep()] == [".advgym-new-old"]
    assert len(list(tmp.iterdir())) == 9


def test_the_lock_is_not_inherited(tmp):
    """A child that outlives its parent does not keep the folder."""
    folder = WorkFolder("job")
    child = subprocess.Popen(["sleep", "60"])
    os.close(folder._fd)
    folder._fd = -1
    assert sweep() == [folder.path]
    child.kill()
    child.wait()
    assert HELD not in os.listdir(tmp)
