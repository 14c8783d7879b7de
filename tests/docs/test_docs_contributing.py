"""CONTRIBUTING's four recipes, followed word for word in a copy of the checkout, and its map of the house."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FOLDERS = ("advgym", "envs", "agents", "leaderboards")
DOMAINS = ("fusion", "graph", "image", "speech", "text")
RECIPES = ("An agent", "A defense", "A victim", "A task")
# A path in backticks at the end of a sentence, then what stands in that file; commands stand by themselves.
STEP = re.compile(r"(?:`([\w/.]+)`:\n)?```(\w+)\n(.*?)```", re.S)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The packages of the checkout, to be written into."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, root / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def steps(title):
    return STEP.findall(TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0])


def follow(root, path, kind, text):
    """One step: a file is written (rows of a table are added), or commands are run; what they printed."""
    if kind != "console":
        assert path, f"a block of {kind} without the file that it belongs to"
        place = root / path
        assert place.parent.is_dir() and (kind == "toml") == place.exists(), path
        place.write_text((place.read_text() + "\n" if place.exists() else "") + text, encoding="utf-8")
        return ""
    said = ""
    env = {**os.environ, "PYTHONPATH": str(root), "ADVGYM_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}
    for line in text.splitlines():
        program, *argv = shlex.split(line)
        assert program == "advgym"
        done = subprocess.run(
            [sys.executable, "-m", "advgym", *argv], cwd=root, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said += done.stdout
    return said


def test_the_four_recipes_are_followed(copy):
    said = {title: "".join(follow(copy, *step) for step in steps(title)) for title in RECIPES}
    assert all(any(kind == "console" for _, kind, _ in steps(title)) for title in RECIPES)
    assert "best-of" in said["An agent"] and "grey-floor" in said["A defense"]
    assert "digits-narrow" in said["A victim"] and "clean accuracy" in said["A victim"]
    assert "digits-faint" in said["A task"]
    result = json.loads((copy / "faint.json").read_text())
    assert result["task"] == "image/digits-faint" and result["victim"]["name"] == "digits-narrow"
    for added in ("agents/search/best_of.py", "agents/defenses/inputs/grey_floor.py"):
        assert not (ROOT / added).exists()


def test_the_map_names_every_room():
    """Every folder of the house is on the map, and nothing on it is missing."""
    house = TEXT.split("## The house\n```\n")[1].split("```")[0]
    words = set(re.findall(r"[a-z_]+", house))
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*/")):
            known = path.is_symlink() or path.name.startswith(("_", ".")) or path.name in (*DOMAINS, "templates")
            assert known or path.name in words, f"{folder}/{path.name} is not on the map"
    for path in re.findall(r"`((?:advgym|agents|envs|leaderboards|tests)/[\w/.]+\.\w+)`", TEXT):
        added = path.endswith(("best_of.py", "grey_floor.py"))
        assert added or (ROOT / path).is_file(), path
