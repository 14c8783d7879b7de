"""`advgym test | submit | status | cancel`: what a participant reads, whatever is handed in."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import processes
import pytest
import warm

from advgym.leaderboards.rules import reasons
from advgym.leaderboards.runs import trial
from advgym.leaderboards.sandbox import best_level

BOARD = """
title = "Tiny"
opens = 2026-01-01T00:00:00Z
closes = 2030-01-01T00:00:00Z
[[tasks]]
id = "image/digits-linf"
knowledge = "score"
queries = 20
[phases.dev]
samples = 8
source = "split:test"
[phases.test]
samples = 8
source = "generator"
[shards]
lanes = 8
[limits]
cpu_s = 120.0
wall_s = 300.0
memory_mb = 1024
processes = 8
size_mb = 1
[defense]
panel = ["noise"]
floor = 0.5
"""
# A board for each limit of time, so that a slow machine meets no other one first.
TIGHT = {
    "cpu-limit": ("spent.toml", ("cpu_s = 120.0", "cpu_s = 2.0")),
    "wall-limit": ("hasty.toml", ("wall_s = 300.0", "wall_s = 1.0")),
}
CARD = 'name = "mine"\ntrack = "attack"\nkind = "field"\nknowledge = "score"\n'
DEFENSE_CARD = 'name = "mine"\ntrack = "defense"\n'
GOOD = """
def attack(env, *, seed=0):
    env.reset(seed=seed)
    while not env.done:
        env.step(env.threat.random(seed))
"""
KEYS = ("status", "reason", "blame", "success_rate", "invalid_rate", "score", "sandbox", "limits")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("board") / "tiny.toml"
    path.write_text(BOARD)
    for name, limit in TIGHT.values():
        path.with_name(name).write_text(BOARD.replace(*limit))
    return path


@pytest.fixture
def warmed(monkeypatch) -> None:
    """A sandbox that is there already; who does without this fixture starts a real one."""
    monkeypatch.setattr(trial, "Box", warm.swapped)


def folder(root: Path, code: str = GOOD, card: str = CARD, file: str = "agent.py") -> Path:
    where = root / "mine"
    where.mkdir()
    (where / "card.toml").write_text(card)
    (where / file).write_text(code)
    return where


def body(*lines: str) -> str:
    return "\n    ".join(["def attack(env, *, seed=0):", *lines]) + "\n"


def registered(said: str) -> str:
    return f"from advgym import register_agent\n\n@register_agent('mine', {said})\n{GOOD.strip()}\n"


# name: (code, card, reason, words of the message)
BAD = {
    "syntax error": ("def attack(env, *, seed=0)\n    pass\n", CARD, "syntax-error", ["agent.py, line 1"]),
    "imports what is not there": (
        "import no_such_thing\n" + GOOD, CARD, "import-error", ["no_such_thing", "advgym list runtime"]
    ),
    "no function": ("def atack(env, *, seed=0):\n    pass\n", CARD, "no-entry-point", ["attack(env, *, seed)"]),
    "raises": (body("raise ValueError('my own [fault]')"), CARD, "crashed", ["ValueError: my own [fault]", "line 2"]),
    "raises on import": ("1 / 0\n", CARD, "crashed", ["on import", "ZeroDivisionError"]),
    "leaves": (body("import os", "os._exit(3)"), CARD, "exited", ["by itself"]),
    "returns late": (body("import time", "time.sleep(600)"), CARD, "wall-limit", ["1 s"]),
    "never returns": (body("while True:", "    pass"), CARD, "cpu-limit", ["2 s"]),
    "prints forever": (body("while True:", "    print('x' * 65536)"), CARD, "output-limit", ["64 MB"]),
    "forks": (
        body("import os, time", "while True:", "    try:", "        os.fork()", "    except OSError:",
             "        time.sleep(0.01)"),
        CARD, "process-limit", ["8"],
    ),
    "eats memory": (
        body("held = []", "while True:", "    held.append(bytearray(b'1' * (32 << 20)))"), CARD, "memory-limit",
        ["1024 MB"],
    ),
    "asks for more than is given": (GOOD, CARD.replace("score", "white-box"), "too-much-knowledge", ["give score"]),
    "plays another kind": (GOOD, CARD.replace('"field"', '"edits"'), "wrong-track", ["image/digits-linf"]),
    "another kind than its card": (
        registered("kind='edits', knowledge='score'"), CARD, "card-mismatch", ["'edits'", "'field'"]
    ),
    "another knowledge than its card": (
        registered("kind='field', knowledge='decision'"), CARD, "card-mismatch", ["'decision'", "'score'"]
    ),
    "another track than its card": (GOOD, DEFENSE_CARD, "wrong-track", ["defense.py", "agent.py"]),
    "a card with a slip": (GOOD, CARD + 'licens = "MIT"\n', "bad-card", ["licens", "licence"]),
    "a card that is no TOML": (GOOD, "name = mine\n", "bad-card", ["TOML"]),
}  # fmt: skip


def failed(answer, reason: str, says: list[str]) -> dict:
    """The one JSON of a failure, with what every failure has."""
    found = json.loads(answer.out)
    assert set(KEYS) <= set(found)
    assert (answer.code, found["status"], found["reason"]) == (1, "failed", reason), found["message"]
    assert found["blame"] == reasons.find(reason).blame == "participant"
    assert found["success_rate"] == found["score"] == 0.0
    cpu_s, wall_s = (2.0 if reason == "cpu-limit" else 120.0), (1.0 if reason == "wall-limit" else 300.0)
    assert found["limits"] == {"cpu_s": cpu_s, "wall_s": wall_s, "memory_mb": 1024, "processes": 8, "size_mb": 1,
                               "job_s": 7200.0}  # fmt: skip
    for word in says:
        assert word in found["message"]
    assert "Traceback" not in answer.err
    return found


QUICK = ("syntax error", "asks for more", "plays another", "another track", "a card")  # the others run for seconds


@pytest.mark.parametrize("name", [n if n.startswith(QUICK) else pytest.param(n, marks=pytest.mark.slow) for n in BAD])
def test_a_bad_attack_says_what_to_do(advgym, tmp_path, tiny, warmed, name):
    code, card, reason, says = BAD[name]
    board = tiny.with_name(TIGHT[reason][0]) if reason in TIGHT else tiny
    failed(advgym("test", folder(tmp_path, code, card), "--board", board, "--json"), reason, says)


@pytest.mark.slow
def test_a_crash_shows_its_log(advgym, tmp_path, tiny, warmed):
    own = folder(tmp_path, body("print('as far as here', flush=True)", "raise ValueError('no [idea]')"))
    answer = advgym("test", own, "--board", tiny)
    assert answer.code == 1
    for word in ("failed crashed", "participant", "ValueError: no [idea] (agent.py, line 3)", "as far as here"):
        assert word in answer.out


# -- archives ------------------------------------------------------------------------------------------------
def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("card.toml", CARD)
        file.writestr("agent.py", GOOD)
        file.writestr("zeros.bin", b"\0" * (20 << 20))


def escape(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("../agent.py")
        info.size = len(GOOD)
        file.addfile(info, io.BytesIO(GOOD.encode()))


def nothing(path: Path) -> None:
    with zipfile.ZipFile(path, "w"):
        pass


@pytest.mark.parametrize(
    ("make", "reason", "says"),
    [
        (bomb, "too-large", ["board allows", "1"]),
        (escape, "bad-archive", ["agent.py"]),
        (nothing, "empty-submission", ["card.toml and agent.py"]),
        (lambda path: path.write_bytes(b"GIF89a" * 500), "bad-archive", ["tar, tar.gz or zip"]),
        (lambda path: path.write_bytes(b"\0" * (4 << 20)), "too-large", ["4.0 MB"]),
    ],
    ids=["bomb", "escape", "nothing", "noise", "huge"],
)
def test_a_bad_archive_says_what_to_do(advgym, tmp_path, tiny, warmed, make, reason, says):
    path = tmp_path / "mine.zip"
    make(path)
    failed(advgym("test", path, "--board", tiny, "--json"), reason, says)


def test_an_empty_folder(advgym, tmp_path, tiny, warmed):
    failed(advgym("test", tmp_path, "--board", tiny, "--json"), "empty-submission", ["card.toml and agent.py"])


def test_a_huge_folder(advgym, tmp_path, tiny, warmed):
    own = folder(tmp_path)
    (own / "weights.bin").write_bytes(b"\1" * (2 << 20))
    failed(advgym("test", own, "--board", tiny, "--json"), "too-large", ["more than 1 MB"])


def test_a_link_is_not_followed(advgym, tmp_path, tiny, warmed):
    own = folder(tmp_path)
    (own / "passwd").symlink_to("/etc/passwd")
    failed(advgym("test", own, "--board", tiny, "--json"), "bad-archive", ["passwd", "links"])


# -- good ones -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_a_good_attack(advgym, tmp_path, tiny, packed, request):
    own = what = folder(tmp_path)
    if packed:
        request.getfixturevalue("warmed")
        what = tmp_path / "mine.tar.gz"
        with tarfile.open(what, "w:gz") as file:
            file.add(own, arcname=".")
    kept = tmp_path / "entry.json"
    answer = advgym("test", what, "--board", tiny, "--json", "--out", kept)
    found = json.loads(answer.out)
    assert (answer.code, found["status"], found["reason"]) == (0, "scored", "")
    assert 0.0 <= found["score"] <= found["success_rate"] <= 1.0
    assert found["sandbox"] == best_level()
    assert sum(found["tasks"][0]["reasons"].values()) == 8
    assert found["tasks"][0]["queries_mean"] <= 20
    entry = json.loads(kept.read_text())
    assert entry["headline"]["low"] == found["score"]
    assert entry["phase"] == "dev"


@pytest.mark.slow
def test_the_templates_are_submissions(advgym, tmp_path, tiny, warmed):
    for what in ("agent", "defense"):
        assert advgym("new", what, tmp_path / what).code == 0
        answer = advgym("test", tmp_path / what, "--board", tiny)
        assert answer.code == 0, answer.out + answer.err
        assert "scored" in answer.out
        assert "image/digits-linf" in answer.out


@pytest.mark.slow
def test_a_defense_that_forgets_its_victim(advgym, tmp_path, tiny, warmed):
    own = folder(tmp_path, "def defend(victim, task):\n    return None\n", DEFENSE_CARD, "defense.py")
    found = json.loads(advgym("test", own, "--board", tiny, "--json").out)
    assert found["status"] == "failed"
    assert found["blame"] == "participant"
    assert "NoneType" in found["message"] or "victim" in found["message"].lower()


# -- options and errors --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["test", "@nowhere", "--board", "@tiny"], "advgym new agent"),
        (["test", "@good", "--board", "imge"], "did you mean 'image'"),
        (["test", "@good", "--board", "@nowhere.toml"], "no board file"),
        (["test", "@good"], "--board"),
        (["test", "@good", "--board", "@tiny", "--phase", "dve"], "did you mean 'dev'"),
        (["test", "@good", "--board", "@tiny", "--phase", "test"], "hidden"),
        (["test", "@good", "--board", "@tiny", "--sandbox", "docker"], "bwrap, landlock, unsandboxed"),
        (["test", "@good", "--board", "@tiny", "--device", "gpu"], "cpu"),
        (["test", "@good", "--board", "@tiny", "--out", "@folder"], "is a folder"),
        (["submit", "@good"], "--board"),
        (["submit", "@good", "--board", "tiny", "--against", "0" * 16], "--against"),
        (["submit", "@nowhere", "--board", "tiny"], "not a folder"),
        (["submit", "@nowhere", "--against", "0" * 16], "cannot read the result file"),
        (["submit", "@folder", "--board", "tiny"], "advgym new agent"),
        (["submit", "@good", "--board", "tiny", "--server", "localhost"], "a server is a URL"),
        (["status", "s1", "--server", "http://127.0.0.1:9"], "is `advgym serve` running there?"),
        (["cancel", "s1", "--server", "http://127.0.0.1:9"], "is `advgym serve` running there?"),
        (["submit", "@good", "--board", "tiny", "--server", "http://127.0.0.1:9"], "is `advgym serve` running there?"),
    ],
    ids=lambda v: " ".join(v[:4]).replace("@", "") if isinstance(v, list) else None,
)
def test_errors_of_the_user_exit_2(advgym, tmp_path, tiny, monkeypatch, args, says):
    monkeypatch.setenv("ADVGYM_TOKEN", "advgym_x")
    there = {"@good": folder(tmp_path), "@tiny": tiny, "@nowhere": tmp_path / "nowhere", "@folder": tmp_path / "bare"}
    (tmp_path / "bare").mkdir()
    there["@nowhere.toml"] = tmp_path / "nowhere.toml"
    answer = advgym(*[there.get(a, a) for a in args])
    assert answer.code == 2, answer.out + answer.err
    assert says in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


@pytest.mark.parametrize("command", ["submit", "status", "cancel"])
def test_without_a_token(advgym, tmp_path, monkeypatch, command):
    monkeypatch.delenv("ADVGYM_TOKEN", raising=False)
    args = (folder(tmp_path), "--board", "tiny") if command == "submit" else ("s1",)
    answer = advgym(command, *args)
    assert answer.code == 2
    assert "set ADVGYM_TOKEN" in answer.err
    assert "advgym token new" in answer.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_leaves_nothing_behind(tmp_path, tiny):
    own = folder(tmp_path, body("import os, time", "os.fork()", "time.sleep(600)"))
    (tmp_path / "tmp").mkdir()
    process = processes.start(
        [sys.executable, "-m", "advgym", "test", str(own), "--board", str(tiny), "--json"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
    )  # fmt: skip
    seen: set[tuple[int, int]] = set()

    def busy() -> bool:
        assert process.poll() is None, process.communicate()
        seen.update(processes.family(process.pid))
        return len(processes.sleepers(seen)) == 2

    try:
        processes.until(busy, "the submission and its child", every=0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert processes.all_gone(seen)
    assert not list((tmp_path / "tmp").glob("advgym-*")), "files of the sandbox outlived it"
