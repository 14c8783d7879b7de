"""What is printed: tables in narrow terminals, a legend for every sign, each thing once."""

import re

import pytest
from rich.table import Table

from advgym.cli import printing
from advgym.cli.score_show import gaps
from advgym.cli.shared.tables import NONE, legend, print_table, table

NUMBER = re.compile(r"\d[\d,.]*\d|\d")


@pytest.fixture
def wide(monkeypatch, capsys):
    """`wide(40, function, ...)` -> what it prints where the terminal has 40 columns."""

    def call(columns, function, *args):
        monkeypatch.setenv("COLUMNS", str(columns))
        printing._console.cache_clear()
        function(*args)
        return capsys.readouterr().out

    return call


def sample(columns=7):
    found = table("name", *(f"figure {i}" for i in range(columns)), "said", text=("said",))
    for name in ("image/digits-linf", "text/synth-wordswap"):
        found.add_row(
            name, *(f"{1234.5 + i:,.1f}" for i in range(columns)), "a sentence of 9,876 words that wraps " * 3
        )
    return found


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_no_number_is_broken(wide, columns):
    text = wide(columns, print_table, sample())
    assert max(len(line.rstrip()) for line in text.split("\n")) <= columns
    found = NUMBER.findall(text)
    for i in range(7):
        assert found.count(f"{1234.5 + i:,.1f}") == 2
    assert found.count("9,876") == 6
    assert "figure 6" in " ".join(text.split()) and "image/digits-linf" in text


def test_one_row_a_line_where_it_fits(wide):
    assert len(wide(240, print_table, sample(3)).strip().split("\n")) == 3
    long = Table(title="a title")
    long.add_column("x", no_wrap=True)
    long.add_row("y" * 60)
    assert "a title" in wide(40, print_table, long)


@pytest.mark.parametrize("columns", [40, 60, 80])
@pytest.mark.parametrize(
    "line",
    [
        ("list", "tasks", "image/digits-*"),
        ("list", "defenses", "--domain", "graph"),
        ("list", "agents", "pgd"),
        ("show", "image/digits-linf"),
        ("attack", "image/digits-linf", "--agent", "fgsm", "--episodes", "4"),
    ],
)
def test_commands_in_narrow_terminals(advgym, monkeypatch, columns, line):
    """The same numbers as in a wide one, none of them broken."""
    monkeypatch.setenv("COLUMNS", "400")
    whole = advgym(*line).out
    monkeypatch.setenv("COLUMNS", str(columns))
    narrow = advgym(*line).out

    def numbers(text):
        return sorted(n for n in NUMBER.findall(re.sub(r"\d+\.\d s", "", text)))

    assert numbers(narrow) == numbers(whole)


def test_a_list_of_tasks_is_a_line_each(advgym, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    rows = advgym("list", "tasks", "image/*-linf").out.strip().split("\n")
    assert len(rows) <= 6 and any(r.startswith("image/digits-linf") for r in rows)
    names = [
        line.split()[0] for line in advgym("list", "tasks", "--domain", "speech").out.split("\n") if "/" in line[:8]
    ]
    assert names and all(name.startswith("speech/") for name in names)
    answer = advgym("list", "tasks", "--domain", "music")
    assert answer.code == 2 and "unknown domain 'music'" in answer.err


def test_a_legend_has_the_signs_that_are_shown(wide):
    signs = {"†": "weak", NONE: "none"}
    assert wide(80, legend, signs, "12†").strip() == "† weak"
    assert wide(80, legend, signs, "12") == ""


def test_a_matrix_explains_its_signs(wide):
    from advgym.cli.matrix import SIGNS, print_matrix
    from advgym.report.matrix import Cell, Group, Matrix, Row

    cells = [Cell(0.5, 12, 0.4, 0.6, 24, "†"), "does not fit", Cell(0.1, 0, 0, 0.2, 24, "▲✕")]
    text = wide(
        80, print_matrix, Matrix("", ["image/a", "text/b", "text/c"], [Group("g", [Row("pgd", cells)])]), "title"
    )
    for sign in ("q", "†", "▲", "✕", NONE):
        assert f"{sign} {SIGNS[sign]}" in " ".join(text.split())


def test_what_was_not_played_is_said_once():
    missing = {
        ("pgd", "graph/x", "none"): "plays field", ("pgd", "graph/x", "jpeg"): "guards images",
        ("noise", "graph/x", "jpeg"): "guards images", ("square", "graph/x", "jpeg"): "guards images",
    }  # fmt: skip
    assert gaps(missing) == ["pgd on graph/x: plays field", "noise, square on graph/x behind jpeg: guards images"]


def test_score_prints_each_thing_once(advgym, monkeypatch, tmp_path):
    board = tmp_path / "tiny.toml"
    assert advgym("new", "board", board).code == 0
    text = re.sub(r"^samples = .*", "samples = 4", board.read_text(), flags=re.M)
    board.write_text(re.sub(r"queries = \d+", "queries = 8", text))
    out = advgym("score", board, "--agent", "noise", "--agent", "square", "--defense", "jpeg").out
    lines = [re.sub(r"\s+", " ", line).strip() for line in out.split("\n") if line.strip()]
    assert len(lines) == len(set(lines)), [line for line in lines if lines.count(line) > 1]
    assert sum(line.startswith("square ") and "%" in line for line in lines) == 2  # its row of the matrix and its score
