"""An entry is checked against its rows and its rows against the victim: what was changed is found."""

import copy
import hashlib
from contextlib import nullcontext

import msgspec
import pytest
import toy
from scored import board, entry
from test_dispute import BOARD, SEEDS, defended

from advgym import attack
from advgym.leaderboards.entries.dispute import lower
from advgym.leaderboards.entries.entry import Interval, Rows, RowSet, canonical
from advgym.leaderboards.entries.own_rows import verify_entry
from advgym.leaderboards.runs.facts import measure
from advgym.leaderboards.scoring.headline import headline_attack
from advgym.leaderboards.scoring.task_scores import score_task

ATTACK_BOARD = board("toy/field")


def attacked(task, agent="random-search"):
    base = measure(task, "test", list(range(40)), SEEDS)
    runs = [attack(task, agent, episodes=40, lanes=8, seed=k) for k in SEEDS]
    sets = [
        RowSet(task=task.name, seed=k, split="test", options={}, samples=r.samples)
        for k, r in zip(SEEDS, runs, strict=True)
    ]
    score, rows = score_task(sets, base), Rows(sets=sets)
    head = headline_attack(ATTACK_BOARD, [score])
    made = entry(
        0, tasks=[score], columns=head.columns, run_seeds=SEEDS, rows=hashlib.sha256(canonical(rows)).hexdigest()
    )
    return msgspec.structs.replace(made, headline=head.interval), rows, [base]


@pytest.fixture(scope="module")
def honest():
    task = toy.task(eps=0.25)
    return task, *attacked(task)


def check(honest, made=None, rows=None, sealed=True):
    task, old, old_rows, facts = honest
    made, rows = made or old, rows or old_rows
    if sealed:  # as a careful cheat would
        made = msgspec.structs.replace(made, rows=hashlib.sha256(canonical(rows)).hexdigest())
    return verify_entry(made, rows, ATTACK_BOARD, facts, lambda rs: nullcontext(task))


def test_an_honest_entry_passes(honest):
    assert check(honest, sealed=False) == []


def test_other_rows_are_found(honest):
    rows = copy.deepcopy(honest[2])
    rows.sets[0].samples.pop()
    assert any("other hash" in w for w in check(honest, rows=rows, sealed=False))


@pytest.mark.parametrize("name", ["headline", "columns", "eligible", "tasks"])
def test_changed_figures_are_found(honest, name):
    made = copy.deepcopy(honest[1])
    if name == "headline":
        made.headline = Interval(made.headline.value, made.headline.low + 0.01, made.headline.high)
    elif name == "columns":
        made.columns["area"] += 0.01
    elif name == "eligible":
        made.eligible = False
    else:
        made.tasks[0].invalid_rate = 0.5
    word = "invalid_rate" if name == "tasks" else name
    assert any(word in w for w in check(honest, made))


@pytest.mark.parametrize("name", ["success", "objective", "distance", "before", "after", "label", "valid"])
def test_changed_rows_are_found(honest, name):
    rows = copy.deepcopy(honest[2])
    s = next(s for s in rows.sets[1].samples if s.success == (name != "success"))
    value = getattr(s, name)
    setattr(s, name, not value if isinstance(value, bool) else value + 1)
    assert any(f"sample {s.id}: {name}" in w for w in check(honest, rows=rows))


def test_another_perturbation_is_found(honest):
    rows = copy.deepcopy(honest[2])
    s = next(s for s in rows.sets[0].samples if s.success)
    s.perturbation = None
    assert any(f"sample {s.id}: success is False" in w for w in check(honest, rows=rows))


def test_rows_of_an_unfinished_episode_may_hide_a_success(honest):
    """A shard that hit a limit: its best so far would have won, and is no success; the figures then must say so."""
    rows = copy.deepcopy(honest[2])
    s = next(s for s in rows.sets[0].samples if s.success)
    s.success, s.first_success, s.reason = False, -1, "wall-limit"
    wrong = check(honest, rows=rows)
    assert wrong and not any(w.startswith("toy/field: sample") for w in wrong)


def test_a_disputed_defense_checks_too():
    task = toy.task(eps=0.25, queries=2)
    made, rows = defended(task)
    strong = attack(toy.task(eps=0.25, queries=20), "pgd", episodes=40, lanes=8)
    base = measure(task, "test", list(range(40)), SEEDS, undefended=0.9)
    facts = [msgspec.structs.replace(base, attack=s.attack) for s in made.tasks]
    assert verify_entry(made, rows, BOARD, facts, lambda rs: nullcontext(task)) == []
    new, more = lower(made, rows, strong, BOARD, task, seed=9, created="c")
    assert verify_entry(new, more, BOARD, facts, lambda rs: nullcontext(task)) == []
    more.sets[-1].samples[0].perturbation = None
    found = verify_entry(new, more, BOARD, facts, lambda rs: nullcontext(task))
    assert any("dispute:1" in w and "success is False" in w for w in found)
    silent = copy.deepcopy(rows)
    silent.sets[0].samples[0] = msgspec.structs.replace(silent.sets[0].samples[0], success=True, reason="cpu-limit")
    found = verify_entry(made, silent, BOARD, facts, lambda rs: nullcontext(task))
    assert any("headline" in w for w in found) and not any("sample" in w for w in found)
