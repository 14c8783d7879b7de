"""Defenses that fail: each is named, and the matrix is finished without its row."""

import json
import re
import time

import pytest
import torch

from advgym import AdvgymError, Victim, attack
from advgym.cli.app import main
from advgym.errors import VictimError
from advgym.lib.limits import limited

BOARD = """
title = "Bad"
opens = 2026-01-01T00:00:00Z
closes = 2030-01-01T00:00:00Z

[[tasks]]
id = "image/digits-linf"
knowledge = "white-box"
queries = 4
gradients = 4

[phases.dev]
samples = 4
source = "split:test"

[phases.test]
samples = 4
source = "generator"

[defense]
panel = ["noise"]
"""
HEAD = '''"""A defense (a test's)."""
import time
import torch
from advgym import make_task


class Behind(torch.nn.Module):
    def __init__(self, victim):
        super().__init__()
        self.victim = victim

    def forward(self, x):
        return {answer}


def defend(victim, task):
    {make}
    return victim.like(Behind(victim), name="bad")


defend.__name__ = "{name}"
'''
# What its model answers, what it does while it is made, and what is said of it.
BAD = {
    "raises": ("1 / 0", "pass", "answered none of the first .* ZeroDivisionError"),
    "nan": ("self.victim(x) * float('nan')", "pass", "answers NaN to 4 of 4 clean samples|answers NaN to"),
    "other_shape": (
        "self.victim(x)[:, :3]",
        "pass",
        r"gives scores of shape \(3,\) per input; this task wants \(10,\)",
    ),
    "fewer_rows": ("self.victim(x)[:1]", "pass", "want one row of scores per input"),
    "no_gradient": ("self.victim(x).detach()", "pass", "gives no gradient although its access is 'gradients'"),
    "fails_when_made": ("x", "1 / 0", "defense '.*' fails on image/digits-linf: ZeroDivisionError"),
    "no_victim": ("x", "return None", "gave NoneType on image/digits-linf; it returns a Victim"),
    "bare_module": ("x", "return victim.module", "gave Cnn on image/digits-linf; it returns a Victim"),
    "hangs": ("time.sleep(600) or self.victim(x)", "pass", r"took more than 4 s"),
}


def write(folder, name, answer, make):
    path = folder / f"{name}.py"
    path.write_text(HEAD.replace("{answer}", answer).replace("{make}", make).replace("{name}", name))
    return path


@pytest.mark.slow
def test_the_matrix_is_finished_without_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    torch.set_num_threads(1)
    (tmp_path / "bad.toml").write_text(BOARD)
    guards = [write(tmp_path, name, answer, make) for name, (answer, make, _) in BAD.items()]
    argv = ["score", str(tmp_path / "bad.toml"), "--agent", "pgd", "--limit", "4", "--out", str(tmp_path / "out")]
    argv += [x for path in [*guards, "bit-depth"] for x in ("--defense", str(path))]
    code = main(argv)
    said = capsys.readouterr()
    assert code == 0, said.err
    assert (tmp_path / "out" / "score.json").is_file()
    for name, (_, _, says) in BAD.items():
        assert re.search(says, said.out.replace("\n", " ")), (name, said.out)
    results = [json.loads(p.read_text()) for p in (tmp_path / "out" / "results").glob("*.json")]
    assert {r["defense"] for r in results} == {"none", "bit-depth"}


@pytest.mark.parametrize("name", [n for n in BAD if n != "hangs"])
def test_it_is_named(name, tmp_path):
    answer, make, says = BAD[name]
    space = {}
    exec(compile(write(tmp_path, name, answer, make).read_text(), name, "exec"), space)
    with pytest.raises(VictimError, match=says):
        attack("image/digits-linf", "pgd", defenses=[space["defend"]], episodes=4, lanes=4, queries=4)


def test_of_another_task():
    """It answers to nothing here; that is said, and no rate is claimed."""
    small = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    with pytest.raises(VictimError, match=r"shape \(4,\) per input; this task wants \(10,\)"):
        attack("image/digits-linf", "pgd", defenses=[lambda v, t: Victim(small)], episodes=4, lanes=4, queries=4)
    wide = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with pytest.raises(AdvgymError, match="answered none of the first"):
        attack("image/digits-linf", "pgd", defenses=[lambda v, t: Victim(wide)], episodes=4, lanes=4, queries=4)


def test_work_is_broken_off():
    with pytest.raises(AdvgymError, match="a nap took more than"), limited(0.2, "a nap"):
        try:
            time.sleep(30)
        except Exception:  # what runs takes no time-out for its own failure
            pytest.fail("an Exception reached the work")
    with limited(30, "nothing"), limited(0, "nothing"):
        pass
