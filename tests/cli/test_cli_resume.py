"""An interrupted attack goes on where it was, and ends where it would have ended."""

import json
import os
import signal
import subprocess
import sys
import time

TASK = "image/digits-linf"


def command(agent, out):
    return [sys.executable, "-m", "advgym", "attack", TASK, "--agent", str(agent), "--episodes", "12", "--lanes", "3",
            "--set", "queries=5", "--out", str(out)]  # fmt: skip


def interrupt(agent, out, how):
    """Start, wait for the first finished batch, stop; the process's code and stderr."""
    partial = out.with_name(out.name + ".partial")
    run = subprocess.Popen(
        command(agent, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "ADVGYM_TEST_PAUSE": "0.4"},
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and run.poll() is None:
        if partial.is_file() and partial.read_bytes().count(b"\n") >= 2:
            break
        time.sleep(0.02)
    run.send_signal(how)
    _, err = run.communicate(timeout=60)
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
    code, err, partial = interrupt(slow_agent, out, signal.SIGINT)
    assert code == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    interrupt(slow_agent, out, signal.SIGKILL)
    with partial.open("ab") as file:
        file.write(b'[1.0, [{"id": 3')  # a torn last line
    assert finish(advgym, slow_agent, out) == whole
    assert sorted(p.name for p in tmp_path.glob("*.json*")) == ["r.json", "whole.json"]
