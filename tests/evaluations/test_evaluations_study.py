"""A study: its cells, what is refused, what is kept, and the statistics."""

import csv
import shlex
from pathlib import Path

import pytest

from advgym import AdvgymError
from advgym.cli.app import main
from advgym.evaluations import grid, study, tables
from advgym.judge import results

SHIPPED = sorted((Path(__file__).parents[2] / "benchmarks" / "studies").glob("*.toml"))
GRID = """
[study]
title = "small"
episodes = 6
clean = 6
[axes]
task = "text/synth-wordswap"
victim = "synth-bag"
agent = ["greedy", "noise"]
queries = [5, 20]
seed = [0, 1]
[[skip]]
agent = "noise"
seed = 1
"""


def written(tmp_path, text):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return path


def test_the_cells_are_the_product_less_what_is_skipped(tmp_path):
    found = grid.read(written(tmp_path, GRID))
    assert len(found.cells) == 6 and len({c.key for c in found.cells}) == 6
    assert not any(c.agent == "noise" and c.seed == 1 for c in found.cells)
    same = grid.read(written(tmp_path, GRID.replace('title = "small"', 'title = "another"')))
    assert [c.key for c in same.cells] == [c.key for c in found.cells]  # a key is of the content


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('agent = ["greedy", "noise"]', "agent = []", "'agent' is empty"),
        ("seed = [0, 1]", f"seed = {list(range(9000))}", "cells, at most"),
        ('agent = ["greedy", "noise"]', 'agent = ["gredy"]', "did you mean 'greedy'"),
        ('task = "text/synth-wordswap"', "", "names no task"),
        ("queries = [5, 20]", "eps = [1]", "unknown axis for text/synth-wordswap"),
        ("episodes = 6", "episods = 6", "unknown entry of a study"),
        ("seed = [0, 1]", "seed = [0.5]", "a seed is a whole number"),
        ('agent = "noise"\nseed = 1', 'task = "text/synth-wordswap"', "every cell is skipped"),
        ("[study]", "[study", "not TOML"),
    ],
)
def test_plain_errors(tmp_path, old, new, words):
    assert old in GRID
    with pytest.raises(AdvgymError, match=words):
        grid.read(written(tmp_path, GRID.replace(old, new)))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    path = written(folder, GRID)
    assert main(["study", str(path), "--out", str(folder / "out")]) == 0
    return path, folder / "out"


def test_what_lies_in_the_folder(played):
    _, out = played
    with (out / "table.csv").open() as lines:
        table = list(csv.DictReader(lines))
    assert len(table) == 6
    for row in table:
        result = results.load(out / "cells" / f"{row['cell']}.json")
        assert float(row["success_rate"]) == result.success_rate and result.agent == row["agent"]
    for name in ("table.parquet", "table.md", "table.tex", "pairs.csv", "study.html"):
        assert (out / name).stat().st_size > 100
    assert main(["verify", str(out / "cells" / f"{table[0]['cell']}.json")]) == 0


def test_the_command_of_a_cell_plays_it(played, tmp_path):
    path, out = played
    cell = grid.read(path).cells[1]
    assert main([*shlex.split(cell.command)[1:], "--out", str(tmp_path / "r.json")]) == 0
    one, other = results.load(tmp_path / "r.json"), results.load(out / "cells" / f"{cell.key}.json")
    assert [s.perturbation for s in one.samples] == [s.perturbation for s in other.samples]


def test_a_killed_study_goes_on_and_no_cell_is_played_twice(played, monkeypatch):
    path, out = played
    place = out / "cells"
    gone = grid.read(path).cells[2]
    (place / f"{gone.key}.json").unlink()
    asked = []
    play = study.play
    monkeypatch.setattr(study, "play", lambda cell, *rest: asked.append(cell.key) or play(cell, *rest))
    _, have, failed = study.run(path, out)
    assert asked == [gone.key] and len(have) == 6 and not failed


def test_one_failing_cell_leaves_the_others(tmp_path):
    text = GRID.replace('victim = "synth-bag"', 'victim = ["synth-bag", "no-such"]').replace("queries = [5, 20]", "")
    found, have, failed = study.run(written(tmp_path, text), tmp_path / "out")
    assert len(have) == 3 and len(failed) == 3 and all("no-such" in why for why in failed.values())
    tables.write(tmp_path / "out", found, have, failed)
    assert "no-such" in (tmp_path / "out" / "study.html").read_text()


def test_holm_is_never_below_p_and_keeps_the_order():
    some = [
        tables.Pair(where="", first="a", second="b", difference=0, samples=9, p=p) for p in (0.2, 0.001, 0.04, 0.04)
    ]
    done = tables.holm(some)
    assert all(x.p_holm >= x.p for x in done) and done[1].p_holm == 0.004
    order = sorted(done, key=lambda x: x.p)
    assert [x.p_holm for x in order] == sorted(x.p_holm for x in order)


@pytest.mark.parametrize("path", SHIPPED, ids=[p.stem for p in SHIPPED])
def test_a_study_that_ships_can_be_read(path):
    found = grid.read(path)
    assert found.title and found.about and len(found.cells) > 3


def test_ranks_share_ties(played):
    path, out = played
    found = grid.read(path)
    have = {c.key: r for c in found.cells if (r := study.kept(c, out / "cells"))}
    ranked = dict((name, rank) for name, rank, _ in tables.ranks(found, have))
    assert ranked["greedy"] <= ranked["noise"] and all(1 <= r <= 2 for r in ranked.values())
