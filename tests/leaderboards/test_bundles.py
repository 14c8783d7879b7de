"""Samples of many members (a graph's nodes under one perturbation): counted by member, on the attack track alone."""

from contextlib import nullcontext

import msgspec
import pytest
import toy
import warm
from hypothesis import given
from hypothesis import strategies as st
from scored import board as named
from scored import facts, rowset, sample

from advgym import AdvgymError, attack, registry
from advgym.core.task import make_task
from advgym.leaderboards.entries.card import read_card
from advgym.leaderboards.entries.entry import RowSet
from advgym.leaderboards.entries.own_rows import verify_entry
from advgym.leaderboards.rules import board, board_tables, hidden
from advgym.leaderboards.rules.board_check import check
from advgym.leaderboards.rules.opening import open_phase
from advgym.leaderboards.rules.phases import phase_tasks
from advgym.leaderboards.runs.baseline import write_folder
from advgym.leaderboards.runs.evaluate import evaluate
from advgym.leaderboards.runs.facts import measure
from advgym.leaderboards.runs.shards import Runner
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.scoring.intervals import mean_interval, rate_interval
from advgym.leaderboards.scoring.task_scores import headline_attack, score_task
from advgym.leaderboards.service import pages
from advgym.leaderboards.service.shelf import Shelf

MEMBERS = 5
members = st.lists(st.booleans(), min_size=MEMBERS, max_size=MEMBERS)


def bundle(i, turned, **over):
    more = {"before": [0] * MEMBERS, "after": [int(t) for t in turned], "objective": sum(turned) / MEMBERS - 1}
    return sample(i, all(turned), **{**more, **over})


@given(st.lists(members, min_size=1, max_size=4), st.integers(1, 3))
def test_a_bundle_brings_the_share_of_its_members_that_turned(turned, seeds):
    ground = facts(4, seeds=range(seeds), members=MEMBERS)
    score = score_task([rowset([bundle(i, t) for i, t in enumerate(turned)])], ground)
    rate = sum(sum(t) for t in turned) / (MEMBERS * 4 * seeds)  # what did not run, and what is missing, turned none
    assert score.success.value == pytest.approx(rate) and score.members == MEMBERS
    assert score.success == rate_interval(score.success.value, MEMBERS)  # further runs on a graph are no new nodes
    both = headline_attack(named("a"), [score])
    assert both.interval == mean_interval([(score.success.value, MEMBERS)])


@pytest.mark.parametrize("over", [{"valid": False}, {"objective": float("nan")}, {"distance": float("inf")},
                                  {"reason": "wall-limit"}])  # fmt: skip
def test_what_does_not_count_brings_nothing(over):
    score = score_task([rowset([bundle(0, [True] * MEMBERS, **over)])], facts(1, members=MEMBERS))
    assert score.success.value == 0.0


def test_the_rate_is_that_of_a_result():
    of = toy.bundle(queries=10)
    result = attack(of, "random-search", episodes=40, lanes=8)
    ground = measure(of, "test", list(range(40)), [0])
    assert ground.members == toy.Shared.members and 0 < result.success_rate < 1
    rows = RowSet(task=of.name, seed=0, split="test", options={}, samples=result.samples)
    assert score_task([rows], ground).success.value == pytest.approx(result.success_rate)


def test_there_is_no_defense_track_for_them(tmp_path):
    with pytest.raises(AdvgymError, match="attack track alone"):
        score_task([], facts(attack="noise", members=MEMBERS))
    text = (board.folder() / "graph-global.toml").read_text().replace('tracks = ["attack"]\n', "")
    (tmp_path / "both.toml").write_text(text + '\n[defense]\npanel = ["noise"]\n')
    assert [p for p in check(tmp_path / "both.toml") if "sbm-global" in p and "no defense track" in p]


def test_the_board_of_whole_graphs_plays_through_the_sandbox(tmp_path):
    of = board.load("graph-global")
    rows = [msgspec.structs.replace(t, queries=8, gradients=8) for t in of.tasks]
    phases = {"dev": msgspec.structs.replace(of.phases["dev"], seeds=1)}
    stage = Stage(msgspec.structs.replace(of, tasks=rows, phases=phases), "dev")
    write_folder("grbcd", tmp_path / "a")
    runner = Runner(stage, read_card(tmp_path / "a"), tmp_path / "a", warm.swapped)
    entry, kept = evaluate(runner, created="2026-01-01T00:00:00Z")
    tasks = {t.row.id: t.task for t in stage.tasks}
    ground = [msgspec.structs.replace(f, seeds=entry.run_seeds) for f in stage.facts]
    assert verify_entry(entry, kept, stage.board, ground, lambda rs: nullcontext(tasks[rs.task])) == []
    for s in entry.tasks:
        assert s.success.value > s.control_rate and s.members == tasks[s.task].goal.members
        assert s.clean_accuracy == tasks[s.task].goal.right_of_all and s.columns and not s.curve
    shelf = Shelf(tmp_path, {of.name: of})
    html = pages.entry_page(shelf, shelf.book(of.name), entry.id, entry, [])
    assert f"{entry.tasks[0].members} members" in html and "Success against queries" not in html
    kept.sets[0].samples[0].after[0] += 1
    assert verify_entry(entry, kept, stage.board, ground, lambda rs: nullcontext(tasks[rs.task]))


@pytest.fixture
def able(monkeypatch):
    """As if the rows said that a seed draws their graph: what a hidden phase of them needs."""
    for name in ("graph/sbm-global", "graph/sbm-inject"):
        monkeypatch.setitem(registry.task_row(name)[1], "generator", True)


def test_a_hidden_phase_is_another_graph_with_a_victim_of_its_own(able, tmp_path):
    of = board.load("graph-global")
    of = msgspec.structs.replace(of, phases={**of.phases, "test": board_tables.Phase(2, "generator")})
    card = open_phase(of, "test", tmp_path)
    assert set(card.victims) == {t.id for t in of.tasks}
    for t, public in zip(phase_tasks(of, "test", tmp_path), phase_tasks(of, "dev"), strict=True):
        mine, known = (p.task.samples(p.split, p.ids) for p in (t, public))
        assert t.split == "test" and mine.graph.pairs.tolist() != known.graph.pairs.tolist()
        assert card.victims[t.row.id].clean_accuracy == t.task.goal.right_of_all
        assert card.victims[t.row.id].weights


def test_only_a_whole_graph_does_without_a_split_of_its_own():
    """A task that does not heed a drawn dataset has no split for it either, and is not taken for hidden."""
    assert hidden.split_of(make_task("text/synth-trigger"), "hidden") == "hidden"
    assert hidden.split_of(make_task("graph/sbm-global"), "hidden") == "test"
    assert hidden.split_of(make_task("graph/sbm-global"), "test") == "test"
