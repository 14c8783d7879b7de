"""One submission on one phase, in real sandboxes: scores, faults, determinism, and the check of what came out."""

import hashlib

import msgspec
import pytest
import tiny
import torch
import warm

from advgym.leaderboards.entries.card import read_card
from advgym.leaderboards.entries.entry import canonical
from advgym.leaderboards.entries.own_rows import verify_entry
from advgym.leaderboards.rules.board_tables import BoardTask, Limits
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.runs import evaluate as module
from advgym.leaderboards.runs.contestant import Played
from advgym.leaderboards.runs.evaluate import Failure, evaluate
from advgym.leaderboards.runs.shards import Runner
from advgym.leaderboards.runs.stage import Stage


@pytest.fixture(scope="module")
def stage():
    return Stage(tiny.board(), "dev")


@pytest.fixture
def run(stage):
    def go(folder, at=None, **options):
        runner = Runner(at or stage, read_card(folder), folder, warm.swapped)
        return evaluate(runner, created="2026-01-01T00:00:00Z", **options)

    return go


def test_an_attack_is_scored_twice_the_same_and_its_entry_is_true(run, stage, tmp_path):
    folder = tiny.attack(tmp_path / "a")
    seen = []
    entry, rows = run(folder, progress=lambda done, total: seen.append((done, total)))
    again, _ = run(folder)
    assert entry.id == again.id and entry.transcript == again.transcript
    assert [s.status for s in entry.tasks] == ["scored", "not attempted"]
    assert 0 < entry.headline.value < 0.5 and entry.headline.low < entry.headline.value < entry.headline.high
    assert entry.headline.value == pytest.approx(entry.tasks[0].success.value / 2)
    assert len(entry.run_seeds) == 2 and len(rows.sets) == 2 and seen[-1][0] == seen[-1][1] == len(seen)
    assert entry.rows == hashlib.sha256(canonical(rows)).hexdigest()
    tasks = {t.row.id: t.task for t in stage.tasks}

    from contextlib import nullcontext

    facts = [msgspec.structs.replace(f, seeds=entry.run_seeds) for f in stage.facts]
    assert verify_entry(entry, rows, stage.board, facts, lambda rs: nullcontext(tasks[rs.task])) == []
    at = next(i for i, s in enumerate(rows.sets[0].samples) if not s.success)
    rows.sets[0].samples[at] = msgspec.structs.replace(rows.sets[0].samples[at], success=True, valid=True)
    assert verify_entry(entry, rows, stage.board, facts, lambda rs: nullcontext(tasks[rs.task]))


def test_the_seeds_follow_the_submission(run, tmp_path):
    one, _ = run(tiny.attack(tmp_path / "a", agent="noise"))
    other, _ = run(tiny.attack(tmp_path / "b", tiny.SEARCH.format(agent="noise") + "\n# another\n"))
    assert one.run_seeds != other.run_seeds and one.code == other.code


def test_an_early_return_keeps_the_best_so_far(run, tmp_path):
    code = """
def attack(env, *, seed):
    env.reset()
    for k in range(4):
        env.step(env.threat.random(k))
"""
    entry, _ = run(tiny.attack(tmp_path / "a", code))
    assert set(entry.tasks[0].reasons) <= {"stopped", "success"} and not entry.flags
    assert entry.tasks[0].queries_mean <= 4


CRASH_LATE = """
import os
def attack(env, *, seed):
    obs, _ = env.reset()
    for k in range(30):
        if env.done:
            return
        env.step(env.threat.random(k))
        if int(obs["clean"][0].sum() * 16) % 2 == 0 and k == 2:
            {end}
"""


@pytest.mark.parametrize(("end", "reason"), [("raise KeyError('x')", "crashed"), ("os._exit(0)", "exited"),
                                             ("while True: pass", "cpu-limit")])  # fmt: skip
def test_a_crash_fails_the_unfinished_samples_of_its_batch_and_the_rest_go_on(run, tmp_path, end, reason):
    quick = Stage(tiny.board(limits=Limits(cpu_s=2, wall_s=300, memory_mb=1536, processes=16, size_mb=5)), "dev")
    entry, rows = run(tiny.attack(tmp_path / "a", CRASH_LATE.format(end=end)), quick)
    reasons = entry.tasks[0].reasons
    assert reasons.get(reason) and any(r in reasons for r in ("queries", "steps", "stopped", "success"))
    assert any(reason in flag for flag in entry.flags)
    assert not any(s.success for rs in rows.sets for s in rs.samples if s.reason == reason)


@pytest.mark.parametrize(
    ("code", "reason", "says"),
    [
        ("def attack(env, *, seed:\n", "syntax-error", "line 1"),
        ("import torchvision_of_tomorrow\n", "import-error", "torchvision_of_tomorrow"),
        ("x = 1\n", "no-entry-point", "attack(env, *, seed)"),
        ("raise RuntimeError('early')\n", "crashed", "early"),
        ("def attack(env):\n    pass\n", "crashed", "seed"),
        ("def attack(env, *, seed):\n    1 / 0\n", "crashed", "ZeroDivisionError: division by zero (agent.py, line 2)"),
        ("import sys\ndef attack(env, *, seed):\n    sys.exit()\n", "crashed", "SystemExit"),
        ("import os\ndef attack(env, *, seed):\n    os.kill(os.getpid(), 9)\n", "exited", ""),
        (
            "from advgym import register_agent\n@register_agent('x', kind='field', knowledge='white-box')\n"
            "def attack(env, *, seed):\n    pass\n", "card-mismatch", "knowledge",
        ),
    ],
)  # fmt: skip
def test_what_cannot_run_fails_with_a_reason(run, tmp_path, code, reason, says):
    with pytest.raises(Failure) as caught:
        run(tiny.attack(tmp_path / "a", code))
    assert caught.value.code == reason and says in caught.value.detail


def test_a_card_that_plays_nothing_here_is_told_what_there_is(run, tmp_path):
    only = Stage(tiny.board(tasks=[BoardTask("image/digits-pixel", "score", 20)]), "dev")
    with pytest.raises(Failure) as caught:
        run(tiny.attack(tmp_path / "a"), only)
    assert caught.value.code == "wrong-track" and "edits" in caught.value.detail


def test_what_it_wrote_comes_back_in_pieces(run, tmp_path):
    code = "import sys\nprint('first words')\nsys.stderr.write('x' * 100_000)\nprint('last words', flush=True)\n1 / 0\n"
    with pytest.raises(Failure) as caught:
        run(tiny.attack(tmp_path / "a", code))
    assert b"first words" in caught.value.first and b"last words" in caught.value.last
    assert len(caught.value.first) <= 4096 and len(caught.value.last) <= 4096


def test_a_defense_meets_the_panel_and_holds_what_it_holds(run, tmp_path):
    entry, rows = run(tiny.defense(tmp_path / "d"))
    by = {(s.task, s.attack): s for s in entry.tasks}
    assert set(by) == {("image/digits-linf", "noise"), ("image/digits-linf", "square"),
                       ("image/digits-pixel", "noise"), ("image/digits-pixel", "greedy"),
                       ("image/digits-linf", "transfer"), ("image/digits-pixel", "transfer")}  # fmt: skip
    assert entry.eligible and 0 < entry.headline.value <= min(s.robust for s in by.values()) + 0.5
    assert all(s.clean_undefended > 0.9 for s in entry.tasks)
    assert {(rs.task, rs.attack, rs.seed) for rs in rows.sets} == {(t, a, s) for t, a in by for s in entry.run_seeds}


def test_a_defense_that_breaks_under_attack_holds_nothing_there(run, tmp_path):
    code = """
from advgym import Victim
def defend(victim, task):
    seen = []
    def model(x):
        seen.append(len(x))
        if len(seen) > {calls}:
            raise RuntimeError("enough")
        return victim(x)
    return Victim(model, access="scores")
"""
    entry, rows = run(tiny.defense(tmp_path / "d", code.format(calls=16)))
    assert entry.headline.value == 0.0 or any("crashed" in flag for flag in entry.flags)
    lost = [s for rs in rows.sets for s in rs.samples if s.reason == "crashed"]
    assert lost and all(s.success for s in lost)


def test_a_defense_below_the_floor_is_not_eligible(run, tmp_path):
    code = """
import torch
from advgym import Victim
def defend(victim, task):
    return Victim(lambda x: torch.eye(10)[torch.zeros(len(x), dtype=torch.long)], access="scores")
"""
    entry, _ = run(tiny.defense(tmp_path / "d", code))
    assert not entry.eligible and "clean accuracy" in entry.footnote


def test_a_board_that_gives_defenses_a_gpu_hands_it_on(tmp_path):
    """As far as a machine without one can tell: the box and the defense's process are asked for it."""
    asked = []

    class Here:
        level = "bwrap"

        def __init__(self, **options):
            asked.append(options)

        def assign(self, folder):
            pass

        def prepare(self, *call):
            pass

        def turn(self, limits, *, role):
            raise InterruptedError(role)

    wanted = msgspec.structs.replace(tiny.board().defense, device="cuda")
    stage = Stage(tiny.board(defense=wanted), "dev")
    folder = tiny.defense(tmp_path / "d")
    with pytest.raises(Refused) as caught:
        evaluate(Runner(stage, read_card(folder), folder, Here), created="")
    assert (caught.value.code, caught.value.blame, asked) == ("no-device", "platform", [])
    assert "--device cuda" in caught.value.text
    assert stage.tasks  # loaded before it seems to lie on a GPU
    stage.device = torch.device("cuda")
    runner = Runner(stage, read_card(folder), folder, Here)
    with pytest.raises(InterruptedError, match="defense"), runner.defended(stage.tasks[0], Played()):
        pass
    assert asked == [{"gpu": True}] and runner.device == "cuda"
    mine = tiny.attack(tmp_path / "a")
    assert Runner(stage, read_card(mine), mine, Here).device == "cpu"


def test_giving_up_is_decided_in_the_plans_order():
    from advgym.leaderboards.boundary.fault import Fault
    from advgym.leaderboards.runs.shards import ShardRun

    def lost(n):
        return ShardRun(number=n, samples=[], fault=Fault(code="wall-limit", text="30 s"))

    fine = ShardRun(number=0, samples=[])
    module._give_up([fine, lost(1), lost(2)])
    with pytest.raises(Failure):
        module._give_up([lost(0), lost(1)])
    module._give_up([lost(0), lost(1), fine])
