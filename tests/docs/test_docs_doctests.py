"""The examples in docstrings are true, each in the module it is in.

Not by `pytest --doctest-modules`: it takes the checkout, which has an `__init__.py` of its own, for the package.
"""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSE = {"advgym": "advgym", "leaderboards": "advgym.leaderboards", "envs": "advgym.envs", "agents": "advgym.agents"}


def modules():
    for folder, package in HOUSE.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            if ">>> " in path.read_text() and not (folder == "advgym" and inside[0] in HOUSE):
                yield ".".join([package, *(inside[:-1] if inside[-1] == "__init__" else inside)])


@pytest.mark.parametrize("name", modules())
def test_examples_are_true(name):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed
