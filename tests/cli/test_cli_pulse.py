"""A command says a line before PyTorch is imported, and is never silent for long; stdout stays its own."""

import subprocess
import sys
import time

import pytest

from advgym.cli import listing, printing, pulse


@pytest.fixture
def quick(monkeypatch):
    for name, seconds in {"QUIET": 0.2, "LATER": 0.3, "STEP": 0.02}.items():
        monkeypatch.setattr(pulse, name, seconds)


def test_lines_while_nothing_is_said(advgym, quick, monkeypatch):
    monkeypatch.setattr(listing, "show_list", lambda *args, **options: time.sleep(1.2))
    lines = advgym("list", "tasks").err.splitlines()
    assert len(lines) > 1 and all(line.startswith("· list: at work (") for line in lines)


def test_where_a_bar_is(advgym, quick, monkeypatch):
    def works(*args, **options):
        with printing.progress() as bar:
            line = bar.add_task("attacks", total=3, note="pgd on x")
            bar.update(line, advance=2)
            time.sleep(0.6)

    monkeypatch.setattr(listing, "show_list", works)
    assert "· attacks: 2 of 3, pgd on x (" in advgym("list", "tasks").err


def test_the_first_line_is_before_pytorch():
    """And stdout is JSON alone."""
    code = """
import sys
class Torch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.stderr.write("HERE\\n")
            raise SystemExit(0)
from advgym.cli.app import main
sys.meta_path.insert(0, Torch())
sys.exit(main(["list", "agents", "--json"]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "" and run.stderr.splitlines()[-2:] == ["· list: loading PyTorch", "HERE"], run.stderr
