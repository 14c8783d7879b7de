"""Ctrl-C at several moments: exit code 130, and what is said to be kept is what is on disk."""

import os
import re
import signal
import subprocess
import sys
import threading

import processes
import pytest

ATTACK = ["attack", "image/digits-linf", "--episodes", "9", "--lanes", "3", "--set", "queries=4"]


def stop(args, moment, folder, after=0.0, **more):
    """Run it until a line of stderr has `moment`, or `moment()` holds; Ctrl-C; (code, what it said, all of stderr)."""
    env = {**os.environ, "ADVGYM_CACHE": str(folder / "cache"), "PYTHONPATH": os.getcwd(), "COLUMNS": "200", **more}
    command = [sys.executable, "-m", "advgym", *map(str, args)]
    run = processes.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, cwd=folder)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(iter(run.stderr.readline, "")), daemon=True)
    reader.start()

    def seen():
        assert run.poll() is None, lines
        return moment() if callable(moment) else any(moment in line for line in lines)

    processes.until(seen, moment)
    if after:
        threading.Event().wait(after)
    run.send_signal(signal.SIGINT)
    code = run.wait(timeout=300)
    reader.join(60)
    text = "".join(lines)
    assert "Traceback" not in text and "please report" not in text, text
    return code, " ".join(line for line in lines if "interrupted" in line), text


@pytest.mark.parametrize("after", [0.0, 0.8])
def test_while_pytorch_is_loaded(tmp_path, after):
    code, said, _ = stop([*ATTACK, "--agent", "pgd", "--out", "r.json"], "loading PyTorch", tmp_path, after)
    assert code == 130 and "nothing was kept" in said
    assert not list(tmp_path.glob("r.json"))


def test_before_and_after_the_first_batch(tmp_path, slow_agent):
    args = [*ATTACK, "--agent", slow_agent, "--out", "r.json"]
    code, said, _ = stop(args, lambda: (tmp_path / "r.json.partial").is_file(), tmp_path, ADVGYM_TEST_BATCHES="0")
    assert code == 130 and "no batch was finished, so nothing was kept" in said

    def two_batches():
        partial = tmp_path / "r.json.partial"
        return partial.is_file() and partial.read_bytes().count(b"\n") >= 3

    code, said, _ = stop(args, two_batches, tmp_path, ADVGYM_TEST_BATCHES="2")
    assert code == 130 and "6 finished samples are in r.json.partial" in said
    code, said, _ = stop(args[:-2], "at most", tmp_path, 0.2, ADVGYM_TEST_BATCHES="0")
    assert code == 130 and "nothing was kept (with --out" in said


def test_audit(tmp_path):
    args = ["audit", "digits-cnn", "--budget", "quick", "--episodes", "12", "--out", "audit"]
    rows = tmp_path / "audit" / "rows"
    code, said, _ = stop(args, lambda: list(rows.glob("*.json")), tmp_path)
    many = int(re.search(r"(\d+) finished rows", said)[1])
    assert code == 130 and many == len(list(rows.glob("*.json"))) and "are in audit/rows" in said
    code, said, _ = stop([*args[:-1], "other"], "loading PyTorch", tmp_path, 0.1)
    assert code == 130 and "nothing was kept" in said


def test_train_and_score(tmp_path, slow_agent):
    args = ["train", "digits-cnn", "--force", "--set", "epochs=4000"]
    code, said, _ = stop(args, "training the victim", tmp_path, 0.3)
    assert code == 130 and "nothing was kept: weights are written when training is over" in said
    assert not list(tmp_path.glob("cache/victims/*.safetensors"))
    code, said, _ = stop(
        ["score", "image", "--agent", slow_agent, "--out", "s"], "attacks: ", tmp_path, ADVGYM_TEST_BATCHES="0"
    )
    assert code == 130 and "nothing was kept" in said and not (tmp_path / "s").exists()


def test_pressed_again_and_again(tmp_path, slow_agent):
    """While a line is written, and while the last words are: they come once, and no traceback after them."""
    env = {**os.environ, "ADVGYM_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.getcwd(), "COLUMNS": "200"}
    command = [sys.executable, "-m", "advgym", *ATTACK, "--agent", str(slow_agent)]
    run = processes.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, cwd=tmp_path)
    lines = []
    for line in run.stderr:
        lines.append(line)
        if "at most" in line or "interrupted" in line:
            run.send_signal(signal.SIGINT)
    assert run.wait(timeout=300) == 130
    text = "".join(lines)
    assert text.count("interrupted") == text.count("at most") == 1 and "Traceback" not in text, text
