"""The table of cheats: every row has tests that exist, or says why not; the page in the docs is the table."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cheat_product import ACCESS, KEYS, POOLS, STATE, WAYS, attacks, defenses
from cheating import LEVELS

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "cheats.md"
ROWS: list[dict[str, Any]] = tomllib.loads((HERE / "cheats.toml").read_text())["cheat"]
FIELDS = {"number", "what", "counter", "tests", "why"}
START, END = "<!-- table -->\n", "<!-- end of table -->\n"


@cache
def functions(file: str) -> dict[str, ast.FunctionDef]:
    """The tests of a file by name, without importing it."""
    tree = ast.parse((HERE / file).read_text())
    return {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}


def marks(test: ast.FunctionDef) -> str:
    """Its decorators, as text."""
    return " ".join(ast.unparse(d) for d in test.decorator_list)


def test_the_rows_are_in_order() -> None:
    assert [row["number"] for row in ROWS] == list(range(1, 31))
    for row in ROWS:
        assert set(row) <= FIELDS and row["what"] and row["counter"]
        assert bool(row.get("tests")) != bool(row.get("why")), row["number"]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: str(r["number"]))
def test_every_test_exists_and_is_expected_to_pass(row: dict[str, Any]) -> None:
    for name in row.get("tests", []):
        file, _, test = name.partition("::")
        assert test in functions(file), name
        assert "xfail" not in marks(functions(file)[test]) and "skip" not in marks(functions(file)[test]), name


def test_no_cheat_is_left_out_of_the_table() -> None:
    named = {name for row in ROWS for name in [*row.get("tests", [])]}
    others = {"test_cheats_table.py", "test_cheats_as_user.py"}
    for path in HERE.glob("test_cheats_*.py"):
        mine = {f"{path.name}::{n}" for n in functions(path.name) if n.startswith("test_")}
        assert path.name in others or mine <= named, mine - named


def table() -> str:
    """The rows as Markdown."""
    lines = ["| # | cheat | what stands against it | tried by |", "|---|---|---|---|"]
    for row in ROWS:
        tried = "<br>".join(f"`{n}`" for n in row.get("tests", [])) or row["why"]
        lines.append(f"| {row['number']} | {row['what']} | {row['counter']} | {tried} |")
    return "\n".join(lines) + "\n"


def test_the_page_is_the_table() -> None:
    text = PAGE.read_text()
    assert text.count(START) == text.count(END) == 1
    assert text.partition(START)[2].partition(END)[0] == table(), "put `table()` of this file between the marks"


def product() -> str:
    """What is combined, as Markdown: every value of every axis, and how many combinations that makes."""
    axes = [
        ("state of a defense", STATE), ("access", ACCESS), ("keys", KEYS), ("way of an attack to the victim", WAYS),
        ("whose budgets are lent", POOLS), ("phase", dict.fromkeys(("dev", "test"))), ("level", dict.fromkeys(LEVELS)),
    ]  # fmt: skip
    lines = ["| axis | values |", "|---|---|", *(f"| {name} | {', '.join(values)} |" for name, values in axes)]
    many = (
        f"{len(defenses())} defenses and {len(attacks())} attacks, each at one level and in one phase in turn; 0 gain."
    )
    return "\n".join([*lines, "", many]) + "\n"


def test_the_page_has_the_product() -> None:
    text = PAGE.read_text()
    first, last = "<!-- product -->\n", "<!-- end of product -->\n"
    assert text.partition(first)[2].partition(last)[0] == product(), "put `product()` of this file between the marks"
