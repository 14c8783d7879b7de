"""What a task measures besides success: made by the evaluator, summed up beside the headline, checked and disputed."""

import copy
import hashlib
import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from scored import board, entry, facts, rowset, sample
from store_entries import made

from advgym import AdvgymError, attack
from advgym.core.columns import Columns
from advgym.leaderboards.entries.dispute import lower, mark
from advgym.leaderboards.entries.entry import Entry, Rows, RowSet, canonical, rows_bytes
from advgym.leaderboards.entries.own_rows import verify_entry
from advgym.leaderboards.runs.facts import measure
from advgym.leaderboards.scoring.headline import headline_attack, headline_defense
from advgym.leaderboards.scoring.intervals import mean_interval, rate_interval
from advgym.leaderboards.scoring.measured import measure_rows
from advgym.leaderboards.scoring.task_scores import score_task
from advgym.leaderboards.service.data import placed_data, table_csv
from advgym.leaderboards.service.shelf import Placed
from advgym.leaderboards.store.record import read_entry, read_rows, write_entry

SEEDS, BAR = [3, 4], 0.4
BOARD = board("toy/edits")


def gentle(batch, form):
    """Edits of each row, and a figure that one edit brings over the bar and two do not."""
    many = [float(v) for v in (form[..., 0] >= 0).sum(1).tolist()]
    return {"edits": many, "gentle": [1 / (1 + n) for n in many]}


def task(limit=2, **threat):
    columns = Columns(gentle, about=lambda: {"gentle": "by hand"}, bars={"gentle": BAR})
    return replace(toy.task("edits", limit=limit, **threat), columns=columns)


def shards(of, agent, name=""):
    """Rows as a server has them: played, then measured."""
    runs = [attack(toy.task("edits", queries=of.threat.queries), agent, episodes=40, lanes=8, seed=k) for k in SEEDS]
    return [
        RowSet(task=of.name, attack=name, seed=k, split="test", options={},
               samples=measure_rows(of, "test", r.samples))
        for k, r in zip(SEEDS, runs, strict=True)
    ]  # fmt: skip


def finished(head, rows, **more):
    bare = entry(0, columns=head.columns, run_seeds=SEEDS, rows=hashlib.sha256(canonical(rows)).hexdigest(), **more)
    return msgspec.structs.replace(bare, headline=head.interval)


@pytest.fixture(scope="module")
def attacked():
    of = task()
    sets, base = shards(of, "random-search"), measure(of, "test", list(range(40)), SEEDS)
    score = score_task(sets, base)
    return of, finished(headline_attack(BOARD, [score]), Rows(sets=sets), tasks=[score]), Rows(sets=sets), [base]


def defended(of):
    base = measure(of, "test", list(range(40)), SEEDS, undefended=0.9)
    grounds = [msgspec.structs.replace(base, attack=a) for a in ("noise", "random-search")]
    played = {f.attack: shards(of, f.attack, f.attack) for f in grounds}
    scores = [score_task(played[f.attack], f) for f in grounds]
    rows = Rows(sets=[rs for sets in played.values() for rs in sets])
    head = headline_defense(BOARD, rows.sets, scores, SEEDS)
    return finished(head, rows, track="defense", tasks=scores), rows, grounds


# -- measuring -------------------------------------------------------------------------------------------------------
def test_rows_are_measured_from_what_is_stored(attacked):
    of, _, rows, _ = attacked
    for s in rows.sets[0].samples:
        many = len(s.perturbation["edits"])
        assert s.columns == {"edits": many, "gentle": 1 / (1 + many)}
    lies = [msgspec.structs.replace(s, columns={"gentle": 9.0, "made up": 1.0}) for s in rows.sets[0].samples]
    assert measure_rows(of, "test", lies) == rows.sets[0].samples
    plain = toy.task("edits")
    assert measure_rows(plain, "test", lies) is lies and measure(plain, "test", [0], [0]).bars == {}


def test_a_column_that_is_no_number_is_the_platforms_fault(attacked):
    of, _, rows, _ = attacked
    broken = replace(of, columns=Columns(lambda batch, form: {"x": [math.nan] * len(form)}))
    with pytest.raises(AdvgymError, match="one finite number"):
        measure_rows(broken, "test", rows.sets[0].samples)


# -- scores ----------------------------------------------------------------------------------------------------------
runs = st.lists(
    st.dictionaries(st.integers(0, 9), st.tuples(st.booleans(), st.floats(0, 1), st.floats(-5, 5)), min_size=1),
    min_size=1, max_size=3,
)  # fmt: skip


@given(runs, st.floats(0, 1))
def test_a_valid_success_is_a_success_over_the_bar(played, bar):
    """Against a count by hand; the denominators are those of the success rate."""
    sets = [
        rowset([sample(i, won, columns={"kept": kept, "size": size}) for i, (won, kept, size) in run.items()], seed=k)
        for k, run in enumerate(played)
    ]
    score = score_task(sets, facts(seeds=range(len(played)), bars={"kept": bar}, columns_about={"kept": "v1"}))
    rows = [row for run in played for row in run.values()]
    many = sum(won and kept >= bar for won, kept, _ in rows)
    assert score.valid_success == rate_interval(many / (10 * len(played)), 10) == score.columns["kept"].success
    assert score.valid_success.value <= score.success.value and score.valid_success.low <= score.success.low
    assert score.columns["kept"].mean == pytest.approx(sum(kept for _, kept, _ in rows) / len(rows))
    won = [size for one, _, size in rows if one]
    assert score.columns["size"].mean_success == (pytest.approx(sum(won) / len(won)) if won else None)
    assert score.columns["size"].bar is None and score.columns["size"].success is None
    assert score.columns_about == {"kept": "v1"}
    assert msgspec.json.decode(msgspec.json.encode(score), type=type(score)) == score
    plain = score_task([rowset({i: r[0] for i, r in run.items()}, seed=k) for k, run in enumerate(played)],
                       facts(seeds=range(len(played)), bars={"kept": bar}))  # fmt: skip
    assert plain.success == score.success and plain.area == score.area  # the headline knows nothing of columns
    assert not plain.columns and not plain.valid_success


def test_two_bars_are_both_to_be_reached():
    rows = [sample(0, True, columns={"a": 1.0, "b": 0.0}), sample(1, True, columns={"a": 1.0, "b": 1.0})]
    score = score_task([rowset(rows)], facts(n=2, bars={"a": 0.5, "b": 0.5}))
    assert score.columns["a"].success.value == 1.0 and score.columns["b"].success.value == 0.5
    assert score.valid_success.value == 0.5


def test_the_headline_of_valid_successes_stands_beside_the_other():
    barred = [sample(i, True, columns={"kept": float(i < 4)}) for i in range(10)]
    one = score_task([rowset(barred)], facts(bars={"kept": 0.5}))
    two = score_task([rowset({i: i < 5 for i in range(10)}, task="b")], facts(task="b"))
    none = score_task([], facts(task="c"))
    found = headline_attack(board("a", "b", "c"), [one, two, none])
    assert found.interval == mean_interval([(1.0, 10), (0.5, 10), (0.0, 10)])
    beside = mean_interval([(0.4, 10), (0.5, 10), (0.0, 10)])  # a task without a bar counts its own
    assert [found.columns[f"valid_success{end}"] for end in ("", "_low", "_high")] == [
        beside.value, beside.low, beside.high,
    ]  # fmt: skip
    assert "valid_success" not in headline_attack(board("b"), [two]).columns


cells = st.dictionaries(st.integers(0, 5), st.tuples(st.booleans(), st.one_of(st.none(), st.floats(0, 1))))


@given(st.lists(cells, min_size=2, max_size=2), st.lists(cells, min_size=2, max_size=2))
def test_a_sample_is_robust_against_valid_successes(first, second):
    """By hand: it was measured and stays below the bar, or it is no success; what is missing broke its sample."""
    ground, played, sets = facts(n=6, seeds=(0, 1), bars={"kept": 0.5}), {"p": first, "q": second}, []
    for name, per_seed in played.items():
        for seed, run in enumerate(per_seed):
            rows = [sample(i, won, columns={} if v is None else {"kept": v}) for i, (won, v) in run.items()]
            sets.append(rowset(rows, attack=name, seed=seed))
    scores = [
        score_task([rs for rs in sets if rs.attack == name], msgspec.structs.replace(ground, attack=name))
        for name in played
    ]
    found = headline_defense(board("a"), sets, scores, (0, 1)).columns

    def holds(run, i):
        won, kept = run.get(i, (True, None))
        return not won or (kept is not None and kept < 0.5)

    held = sum(all(holds(per[seed], i) for per in played.values()) for seed in (0, 1) for i in range(6))
    if any(kept is not None for per in played.values() for run in per for _, kept in run.values()):
        assert found["valid_robust"] == pytest.approx(held / 12)
    else:
        assert "valid_robust" not in found


# -- checking and disputing ------------------------------------------------------------------------------------------
def check(scene, made_entry=None, rows=None, of=None, grounds=None):
    true, old, old_rows, base = scene
    rows = rows or old_rows
    made_entry = msgspec.structs.replace(made_entry or old, rows=hashlib.sha256(canonical(rows)).hexdigest())
    return verify_entry(made_entry, rows, BOARD, grounds or base, lambda rs: nullcontext(of or true))


def test_columns_are_checked_again(attacked):
    assert check(attacked) == []
    made_entry, rows = attacked[1], copy.deepcopy(attacked[2])
    assert 0 < made_entry.columns["valid_success"] < made_entry.headline.value
    row = next(s for s in rows.sets[1].samples if s.success)
    row.columns["gentle"] += 0.25
    found = check(attacked, rows=rows)
    assert any(f"sample {row.id}: gentle is" in w for w in found) and any("columns is" in w for w in found)
    del row.columns["gentle"]
    assert any(f"sample {row.id}: columns are" in w for w in check(attacked, rows=rows))


@pytest.mark.parametrize("name", ["valid_success", "columns", "columns_about"])
def test_figures_that_do_not_follow_are_found(attacked, name):
    changed = copy.deepcopy(attacked[1])
    score = changed.tasks[0]
    if name == "columns":
        score.columns["edits"] = msgspec.structs.replace(score.columns["edits"], mean=0.1)
    else:
        setattr(score, name, rate_interval(1.0, 36) if name == "valid_success" else {"gentle": "by luck"})
    assert any(f"toy/edits: {name} is" in w for w in check(attacked, changed))


def test_columns_made_with_other_tables_are_one_difference_and_not_many(attacked):
    of, _, _, base = attacked
    other = replace(of, columns=Columns(lambda b, f: {"edits": [0.0] * len(f), "gentle": [0.0] * len(f)},
                                        about=lambda: {"gentle": "by machine"}, bars={"gentle": BAR}))  # fmt: skip
    grounds = [msgspec.structs.replace(f, columns_about={"gentle": "by machine"}) for f in base]
    found = check(attacked, of=other, grounds=grounds)
    assert any("columns_about is {'gentle': 'by machine'}" in w for w in found) and not any(
        "sample" in w for w in found
    )


def test_disputes_are_measured_and_lower_both_figures():
    of = task(queries=2)
    old, rows, grounds = defended(of)
    strong = attack(task(queries=60), "greedy", episodes=40, lanes=8)
    new, more = lower(old, rows, strong, BOARD, of, seed=9, created="c")
    assert all(set(s.columns) == {"edits", "gentle"} for s in more.sets[-1].samples)
    assert new.headline.value < old.headline.value and new.columns["valid_robust"] < old.columns["valid_robust"]
    assert new.columns["valid_robust"] > new.headline.value  # of what broke, some needed two edits
    assert verify_entry(new, more, BOARD, grounds, lambda rs: nullcontext(of)) == []
    more.sets[-1].samples[0].columns["gentle"] += 0.3
    assert any(
        "dispute:1" in w and "gentle" in w for w in verify_entry(new, more, BOARD, grounds, lambda rs: nullcontext(of))
    )


# -- what was kept before there were columns -------------------------------------------------------------------------
def before(rows):
    """The rows' bytes as they were written before samples had columns."""
    plain = msgspec.to_builtins(rows)
    for rs in plain["sets"]:
        for s in rs["samples"]:
            del s["columns"]
    return canonical(plain)


def test_entries_from_before_keep_their_bytes_and_are_read_marked_and_checked(attacked, tmp_path):
    one, rows = made()
    old = before(rows)
    one = msgspec.structs.replace(one, rows=hashlib.sha256(old).hexdigest())
    assert b"columns_about" not in canonical(one) and b"valid_success" not in canonical(one)
    assert canonical(msgspec.json.decode(canonical(one), type=Entry)) == canonical(one)
    assert rows_bytes(rows, one.rows) == old and rows_bytes(rows) == canonical(rows) != old
    id = write_entry(tmp_path, one, rows)
    assert (tmp_path / "entries" / one.board / f"{id}.rows.json").read_bytes() == old
    again = read_entry(tmp_path, id)
    assert again == one and again.id == id
    marked = mark(again, created="2026-11-21T10:00:00Z", footnote="why", external=True)
    assert read_entry(tmp_path, write_entry(tmp_path, marked, read_rows(tmp_path, again))).supersedes == id
    wrong = msgspec.structs.replace(rows, sets=[])
    with pytest.raises(AdvgymError, match="made for rows"):
        write_entry(tmp_path, msgspec.structs.replace(one, name="other"), wrong)

    of, _, played, base = attacked  # such an entry is checked as it was
    bare = copy.deepcopy(played)
    for rs in bare.sets:
        rs.samples = [msgspec.structs.replace(s, columns={}) for s in rs.samples]
    score = score_task(bare.sets, base[0])
    kept = finished(headline_attack(BOARD, [score]), bare, tasks=[score])
    kept = msgspec.structs.replace(kept, rows=hashlib.sha256(before(bare)).hexdigest())
    assert not score.columns and verify_entry(kept, bare, BOARD, base, lambda rs: nullcontext(of)) == []


# -- what is shown ---------------------------------------------------------------------------------------------------
def test_csv_and_json_hold_them(attacked):
    one = attacked[1]
    plain = entry(0.2, name="plain", tasks=[SimpleNamespace(task="toy/edits", attack="", status="scored",
                  success=rate_interval(0.2, 10), columns=msgspec.UNSET, valid_success=msgspec.UNSET)])  # fmt: skip
    lines = [line.split(",") for line in table_csv([Placed("0" * 16, one, 1), Placed("1" * 16, plain, 2)]).splitlines()]
    at = lines[0].index("valid toy/edits")
    assert float(lines[1][at]) == one.tasks[0].valid_success.value and lines[2][at] == ""
    assert float(lines[1][lines[0].index("valid_success")]) == one.columns["valid_success"]
    assert placed_data(Placed("0" * 16, one, 1))["measured"]["toy/edits"]["gentle"]["bar"] == BAR
    assert placed_data(Placed("1" * 16, plain, 2))["measured"] == {}
