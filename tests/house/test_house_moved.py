"""Every old import path works for one version, with a warning; so do old `make=` strings.

`old_paths.json` holds the modules before the move and their public names; of private ones the path alone.
"""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from advgym import _moved, registry
from advgym.leaderboards.scoring import scorer

OLD = {k: v.split() for k, v in json.loads(Path(__file__).with_name("old_paths.json").read_text()).items()}


def test_every_old_path_gives_its_public_names():
    missing, quiet = [], []
    for old, names in OLD.items():
        module = importlib.import_module(old)
        files = {name for name in names if old in _moved.FOLDERS and importlib.util.find_spec(f"{old}.{name}")}
        missing += [f"{old}.{name}" for name in names if name not in files and not hasattr(module, name)]
        quiet += [old] if old not in _moved.MODULES else []
    assert not missing and not quiet and set(OLD) == set(_moved.MODULES) and sum(map(len, OLD.values())) > 1400


def test_the_table_names_what_is_there():
    for old, new in _moved.MODULES.items():
        assert importlib.import_module(new).__name__ == new, old
    for (old, name), new in _moved.ELSEWHERE.items():
        assert old in _moved.MODULES and hasattr(importlib.import_module(new), name), (old, name)


def fresh(code):
    return subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    ("code", "new"),
    [
        ("from advgym.results import load", "advgym.judge.results"),
        ("import advgym.run; assert advgym.run.attack is advgym.attack", "advgym.judge.run"),
        ("from advgym.envs.graph.zoo.smoothing import smoothed", "advgym.envs.graph.models.smoothing"),
        ("from advgym.envs.text.data import movie_reviews", "advgym.envs.text.data.corpora"),
        ("from advgym.agents import pgd; pgd.attack", "advgym.agents.gradient.pgd"),
    ],
)
def test_one_is_told_where_it_went(code, new):
    told = [line for line in fresh(code).stderr.splitlines() if "DeprecationWarning" in line]
    assert any(f"is now {new}" in line and line.startswith("<string>:1") for line in told), told


def test_nothing_of_ours_takes_an_old_path():
    code = "import advgym; advgym.registry.agents(), advgym.registry.defenses(); advgym.make('image/digits-linf')"
    assert "is now" not in fresh(code).stderr


def test_a_folder_still_refuses_what_never_was():
    with pytest.raises(ImportError, match="nothing_like_it"):
        from advgym.envs.text.data import nothing_like_it  # noqa: F401
    with pytest.raises(ImportError):
        importlib.import_module("advgym.nowhere")


def test_old_make_strings_work_and_are_hashed_as_the_new():
    assert registry.load("advgym.envs.image.task:ball").__name__ == "ball"
    assert registry.load("advgym.envs.graph.poison:edges") is registry.load("advgym.envs.graph.tasks.poison:edges")
    old, new = (scorer.domain(f"advgym.envs.graph.{name}") for name in ("poison", "tasks.poison"))
    assert old == new


def test_the_pages_show_no_old_path():
    pages = [*Path(__file__).parents[2].glob("docs/*.md"), Path(__file__).parents[2] / "README.md"]
    shown = [
        (page.name, module, name.strip().split(" ")[0])
        for page in pages
        for module, names in re.findall(r"^from (advgym[\w.]*) import ([\w ,]+)", page.read_text(), re.MULTILINE)
        for name in names.split(",")
    ]
    old = [
        one
        for one in shown
        if (one[1] in _moved.MODULES and one[1] not in _moved.FOLDERS)
        or f"{one[1]}.{one[2]}" in set(_moved.MODULES) - _moved.FOLDERS
        or (one[1] in _moved.FOLDERS and importlib.util.find_spec(f"{one[1]}.{one[2]}") is None)
    ]
    assert len(shown) > 20 and not old, old
