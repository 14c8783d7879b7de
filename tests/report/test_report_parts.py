"""The report's numbers: matrices, flags, curves; its text: escaped, self-contained."""

import re
from itertools import pairwise

import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from advgym import attack, registry
from advgym.lib.rates import wilson
from advgym.report.matrix import Cell, agents_by_tasks, attack_by_defense, beaten, gather_flags
from advgym.report.page import colours, write_report
from advgym.report.svg import curve, spread, ticks


@pytest.fixture(scope="module")
def results():
    plays = {"field": ("pgd", "square", "noise"), "edits": ("first-order", "greedy", "noise")}
    return [
        attack(toy.task(kind, knowledge=registry.agent(agent).knowledge), agent, episodes=12)
        for kind, agents in plays.items()
        for agent in agents
    ]


@pytest.fixture(scope="module")
def tasks():
    return {"toy/field": toy.task("field"), "toy/edits": toy.task("edits")}


def altered(result, **changes):
    import copy

    twin = copy.deepcopy(result)
    for key, value in changes.items():
        setattr(twin, key, value)
    return twin


def test_matrix_has_every_result_in_its_place(results):
    matrix = agents_by_tasks(results, ["toy/field", "toy/edits"], {("pgd", "toy/edits", "none"): "plays field"})
    cells = {
        (row.name, column): cell
        for g in matrix.groups
        for row in g.rows
        for column, cell in zip(matrix.columns, row.cells, strict=True)
    }
    for r in results:
        assert cells[r.agent, r.task].rate == r.success_rate
    assert cells["pgd", "toy/edits"] == "plays field"
    assert cells["square", "toy/edits"] is None
    assert matrix.groups[-1].title == "Control"
    assert matrix.domains == [("toy", 2)]


def test_black_box_above_white_box_is_flagged(results):
    field = [r for r in results if r.task == "toy/field"]
    weak = [altered(r, success_rate=0.1) if r.agent == "pgd" else altered(r, success_rate=0.9) for r in field]
    assert [r.agent for r in beaten(weak)] == ["square"]
    assert any("square" in text and "white-box" in text for _, text in gather_flags(weak))
    marks = [
        c.marks
        for g in agents_by_tasks(weak, ["toy/field"], {}).groups
        for row in g.rows
        for c in row.cells
        if isinstance(c, Cell)
    ]
    assert sum("▲" in m for m in marks) == 1
    same = [altered(r, success_rate=0.5) for r in field]
    assert beaten(same) == []


def test_no_better_than_the_control_is_flagged(results):
    low = [altered(results[0], success_rate=0.0, control_rate=0.0)]
    assert any("random control" in text for _, text in gather_flags(low))
    assert "†" in agents_by_tasks(low, ["toy/field"], {}).groups[0].rows[0].cells[0].marks


def test_defense_matrix(results):
    field = [r for r in results if r.task == "toy/field"]
    guarded = [altered(r, defense="wall", clean_accuracy=0.5) for r in field]
    domain, matrix = attack_by_defense(field, guarded, "toy", {("pgd", "toy/field", "moat"): "gives no gradients"})
    assert domain == "toy"
    assert matrix.columns == ["none", "wall", "moat"]
    assert [row.cells for row in matrix.foot] == [[f"{100 * field[0].clean_accuracy:.0f}", "50", None]]
    row = next(row for row in matrix.groups[0].rows if row.name == "pgd")
    assert row.cells[2] == "gives no gradients"


def test_curve_is_the_empirical_distribution(results):
    for r in results:
        points = curve(r)
        assert points[-1][0] == r.threat["queries"]
        assert points[-1][1] == pytest.approx(r.success_rate)
        for q, rate, low, high in points:
            wins = sum(s.success and s.first_success <= q for s in r.samples)
            assert rate == pytest.approx(wins / len(r.samples))
            assert (low, high) == wilson(wins, len(r.samples))
        for q, rate in r.curve:
            assert max(p[1] for p in points if p[0] <= q) == pytest.approx(rate)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.floats(1, 14))
def test_labels_keep_their_distance(wanted, gap):
    placed = spread(wanted, gap, 0, 100)
    step = min(gap, 100 / max(len(wanted) - 1, 1))
    ordered = sorted(placed)
    assert all(b - a >= step - 1e-6 for a, b in pairwise(ordered))
    assert ordered[0] >= -1e-6
    assert ordered[-1] <= 100 + 1e-6
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    assert order == sorted(range(len(wanted)), key=lambda i: (placed[i], i))


@pytest.mark.parametrize("budget", [1, 2, 7, 150, 500, 100_000])
def test_ticks_end_at_the_budget(budget):
    found = ticks(budget)
    assert found[-1] == budget
    assert found[0] == 1


def test_colours_differ_within_a_figure(results):
    slots = colours(results)
    assert slots["pgd"] != slots["square"]
    assert slots["first-order"] != slots["greedy"]
    assert "noise" not in slots


def test_page_is_one_file_and_escapes(results, tasks, tmp_path):
    bad = [altered(r, flags=["<script>alert(1)</script>"]) for r in results]
    page = write_report(tmp_path / "r.html", bad, tasks, title="<b>A & B</b>", notes=["<i>x"], command="advgym <x>")
    assert (tmp_path / "r.html").read_text() == page
    assert page.count("<script") == 1  # our own, for ordering tables
    assert "<script>alert" not in page
    assert "&lt;b&gt;A &amp; B&lt;/b&gt;" in page
    assert "@import" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']*""", page)
    assert "{{" not in page
    for r in results:
        assert f">{r.agent}<" in page


def test_examples_are_shown_by_the_task(results, tasks):
    def show(batch, row, form, before, after):
        return f"<p class='shown'>{int(before)} {int(after)}</p>"

    tasks["toy/field"].show = show
    page = write_report(None, results, tasks, title="t")
    wins = sum(s.success for r in results if r.task == "toy/field" for s in r.samples)
    assert page.count("class='shown'") == min(4, wins) > 0


def test_one_result_makes_a_page_of_its_own(results, tasks):
    page = write_report(None, results[:1], tasks, title="pgd on toy/field")
    assert "robust accuracy" in page
    assert "Attacks and defenses" not in page


def test_the_command_plays_the_attack_again(results):
    """As the command line reads it: the same rows."""
    import json
    import shlex

    from advgym.cli.values import read_defense
    from advgym.report.cells import command_of

    r = altered(
        results[0], defenses=[("bit-depth", {"bits": 2})], settings={"steps": 3}, options={"queries": 7, "own": 1}
    )
    words = shlex.split(command_of(r))
    assert words[:5] == ["advgym", "attack", "toy/field", "--agent", r.agent]
    assert [words[i + 1] for i, w in enumerate(words) if w == "--set"] == ["task.queries=7", "agent.steps=3"]
    name, settings = read_defense(words[words.index("--defense") + 1])
    assert (name, settings) == ("bit-depth", {"bits": 2})
    assert json.dumps(words).count("own") == 0


def test_papers_are_read_off_docstrings():
    from advgym.report.papers import paper_of

    assert "Andriushchenko et al. 2020" in paper_of(registry.agent("square"))
    assert "Madry et al. 2018" in paper_of(registry.agent("pgd"))


def test_answers_are_told_once():
    from advgym.report.examples import _tells

    assert _tells("<p>cat &rarr; <b>dog</b></p>", "cat", "dog")
    assert not _tells("<p>cat</p>", "cat", "dog")
    assert not _tells("", "cat", "dog")
