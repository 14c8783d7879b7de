"""An interrupted attack goes on where it was, and ends where it would have ended."""

import json
import os
import signal
import subprocess
import sys

import processes

TASK = "image/digits-linf"


def command(agent, out):
    return [sys.executable, "-m", "advgym", "attack", TASK, "--agent", str(agent), "--episodes", "12", "--lanes", "3",
            "--set", "queries=5", "--out", str(out)]  # fmt: skip


def interrupt(agent, out, how, lines):
    """Start, wait until one batch more is done and the next is at work, stop; the process's code and stderr."""
    partial = out.with_name(out.name + ".partial")
    run = processes.start(
        command(agent, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "ADVGYM_TEST_BATCHES": "1"},
    )  # fmt: skip

    def written():
        assert run.poll() is None, run.communicate()[1]
        return partial.is_file() and partial.read_bytes().count(b"\n") >= lines

    processes.until(written, f"{lines} lines of {partial}")
    run.send_signal(how)
    _, err = run.communicate(timeout=300)
    assert partial.is_file(), err
    assert not out.exists()
    return run.returncode, err, partial


def finish(advgym, agent, out):
    done = advgym(*command(agent, out)[3:])
    assert done.code == 0, done.err
    return {k: v for k, v in json.loads(out.read_text()).items() if k != "seconds"}


def test_ctrl_c_and_kill_resume_to_the_same_result(advgym, slow_agent, tmp_path):
    whole = finish(advgym, slow_agent, tmp_path / "whole.json")
    out = tmp_path / "r.json"
    code, err, partial = interrupt(slow_agent, out, signal.SIGINT, 2)
    assert code == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    interrupt(slow_agent, out, signal.SIGKILL, 3)
    with partial.open("ab") as file:
        file.write(b'[1.0, [{"id": 3')  # a torn last line
    assert finish(advgym, slow_agent, out) == whole
    assert sorted(p.name for p in tmp_path.glob("*.json*")) == ["r.json", "whole.json"]
