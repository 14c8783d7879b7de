"""The canonical archive and its hashes: the same folder, the same bytes; copies are found; nothing is run."""

import io
import os
import tarfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advgym.leaderboards.entries.card import code_hash, folder_hash, pack
from advgym.leaderboards.entries.code_tokens import code_digest
from advgym.leaderboards.rules.reasons import Refused

CODE = '''"""An attack."""
import torch

def attack(env, *, share=0.2, seed=0):
    """Doc."""
    obs, info = env.reset(seed=seed)  # deal
    while not env.done:
        obs = env.step(env.threat.random(seed) * share)
'''
RENAMED = """import torch
def attack(world, *, part=0.2, s=0):

    seen, about = world.reset(s=s)
    while not world.done:

        # the step
        seen = world.step(   world.threat.random(s)
            * part)
"""


def fill(folder, names=("card.toml", "agent.py", "lib/more.py", "w.bin")):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    return folder


def test_order_times_and_modes_do_not_matter(tmp_path):
    one = fill(tmp_path / "one")
    two = fill(tmp_path / "two", ("w.bin", "lib/more.py", "card.toml", "agent.py"))
    for path in two.rglob("*"):
        os.utime(path, (time.time() - 9999,) * 2)
    (two / "agent.py").chmod(0o755)
    (two / ".git").mkdir()
    (two / ".git" / "HEAD").write_text("x")
    (two / "__pycache__").mkdir()
    (two / "__pycache__" / "agent.pyc").write_text("x")
    assert pack(one) == pack(two)
    assert folder_hash(one) == folder_hash(two)
    with tarfile.open(fileobj=io.BytesIO(pack(one))) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["agent.py", "card.toml", "lib/more.py", "w.bin"]
    assert all(m.isreg() and m.mtime == 0 and m.uid == 0 and m.mode == 0o644 and not m.uname for m in members)


def test_the_archive_holds_the_folder(tmp_path):
    fill(tmp_path / "one")
    with tarfile.open(fileobj=io.BytesIO(pack(tmp_path / "one"))) as tar:
        tar.extractall(tmp_path / "two", filter="data")
    assert folder_hash(tmp_path / "two") == folder_hash(tmp_path / "one")
    (tmp_path / "two" / "w.bin").write_text("other")
    assert folder_hash(tmp_path / "two") != folder_hash(tmp_path / "one")


@pytest.mark.parametrize("trap", ["link", "folder link", "fifo", "long", "unicode", "empty", "big"])
def test_traps(tmp_path, trap):
    folder = tmp_path / "it"
    folder.mkdir()
    if trap == "link":
        (folder / "x").symlink_to("/etc/passwd")
    elif trap == "folder link":
        (folder / "x").symlink_to("/etc")
    elif trap == "fifo":
        os.mkfifo(folder / "x")
    elif trap == "long":
        (folder / ("x" * 101)).touch()
    elif trap == "unicode":
        (folder / "\u0430gent.py").touch()
    elif trap == "big":
        with (folder / "x").open("wb") as file:
            file.truncate(2 << 20)
    code = {"empty": "empty-submission", "big": "too-large"}.get(trap, "bad-archive")
    with pytest.raises(Refused) as caught:
        pack(folder, size_mb=1)
    assert caught.value.code == code


def test_renaming_comments_and_layout_do_not_hide_a_copy(tmp_path):
    assert code_digest(CODE.encode()) == code_digest(RENAMED.encode())
    assert code_digest(CODE.encode()) != code_digest(CODE.replace("0.2", "0.3").encode())
    assert code_digest(CODE.encode()) != code_digest(CODE.replace("obs, info", "info, obs").encode())
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name, code in ((one, "agent.py", CODE), (two, "other.py", RENAMED)):
        folder.mkdir()
        (folder / name).write_text(code)
        (folder / "card.toml").write_text(f"# {name}")
    assert code_hash(one) == code_hash(two)
    assert folder_hash(one) != folder_hash(two)


def test_renaming_within_one_function_does_not_hide_a_copy():
    one = """
def far(x, step):
    def near(y): return y * step
    return near(x)
class Held:
    def best(self, x):
        for step in x:
            yield step
x = far(1, 2)
"""
    other = one.replace("def best(self, x):", "def best(me, them):").replace("in x:", "in them:")
    assert other != one and code_digest(other.encode()) == code_digest(one.encode())
    swapped = one.replace("return near(x)", "return x(near)")
    assert code_digest(swapped.encode()) != code_digest(one.encode())


def test_code_is_never_run_or_imported(tmp_path, monkeypatch):
    import builtins

    (tmp_path / "agent.py").write_text("open('/tmp/advgym-was-run', 'w').write('x')\n")
    monkeypatch.setattr(builtins, "compile", lambda *a, **k: pytest.fail("compiled"))
    monkeypatch.setattr(builtins, "exec", lambda *a, **k: pytest.fail("executed"))
    assert len(code_hash(tmp_path)) == 64
    assert not os.path.exists("/tmp/advgym-was-run")


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes_have_a_digest(data):
    assert code_digest(data) == code_digest(data)
    assert len(code_digest(data)) == 64
