"""What the command line says before it does anything: quick, without torch, and helpful."""

import subprocess
import sys

import pytest

from advgym.cli import app


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("args", [["--help"], ["attack", "--help"], ["list", "tasks", "--json"], ["--version"]])
def test_light_commands_import_no_torch(args):
    code = f"code = main({args!r}); assert 'torch' not in sys.modules; sys.exit(code)"
    done = run(f"import sys; from advgym.cli.app import main; {code}")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == ""


def test_python_m_advgym():
    done = subprocess.run([sys.executable, "-m", "advgym", "--help"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    for command in ("demo", "list", "attack", "verify", "train", "new", "bench"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["atack"], "Did you mean 'attack'"),
        (["attack", "image/digits-linf", "--agent", "pgd", "--epsodes", "3"], "--episodes"),
        (["attack", "image/digits-linf"], "--agent"),
        (["attack", "image/digits-linf", "--agent", "pgd", "--episodes", "0"], "--episodes"),
        (["attack", "image/digits-linf", "--agent", "pgd", "--episodes", "many"], "--episodes"),
        (["list"], "WHAT"),
    ],
)
def test_usage_errors_are_short_and_exit_2(advgym, args, says):
    answer = advgym(*args)
    assert answer.code == 2
    assert says in answer.err
    assert "--help" in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


def test_what_we_did_not_expect_exits_70(advgym, monkeypatch):
    from advgym.cli import listing as cli_list

    def broken(*args, **kwargs):
        raise RuntimeError("the disk is [red]hot")

    monkeypatch.setattr(cli_list, "show_list", broken)
    answer = advgym("list", "tasks")
    assert answer.code == app.UNEXPECTED
    assert "RuntimeError: the disk is [red]hot" in answer.err
    assert "ADVGYM_TRACEBACK=1" in answer.err
    assert "Traceback" not in answer.err
    monkeypatch.setenv("ADVGYM_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        advgym("list", "tasks")


def test_ctrl_c_exits_130(advgym, monkeypatch):
    from advgym.cli import listing as cli_list

    def broken(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_list, "show_list", broken)
    assert advgym("list", "tasks").code == 130
