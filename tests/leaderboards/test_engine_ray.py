"""The same entry from the local engine and from Ray, to the bit: engines place shards and decide nothing."""

import logging
from types import SimpleNamespace

import pytest
import tiny
import warm

from advgym.leaderboards.entries.card import pack, read_card
from advgym.leaderboards.entries.entry import canonical
from advgym.leaderboards.rules.board import load
from advgym.leaderboards.rules.opening import open_phase
from advgym.leaderboards.runs.engines import local, make_engine
from advgym.leaderboards.runs.evaluate import Failure, evaluate
from advgym.leaderboards.runs.shards import Runner
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.service.plan import Plan

ray = pytest.importorskip("ray", reason="ray is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
BOARD = """
title = "Placed"
opens = 2020-01-01T00:00:00Z
closes = 2040-01-01T00:00:00Z
[[tasks]]
id = "image/digits-linf"
{given}
queries = 12
[[tasks]]
id = "image/digits-l2"
{given}
queries = 12
[phases.dev]
samples = 6
source = "split:test"
[phases.test]
samples = 6
source = "generator"
[shards]
lanes = 3
order = "shuffled"
[limits]
cpu_s = 60.0
wall_s = 300.0
memory_mb = 1536
processes = 16
[defense]
panel = ["noise", "square"]
floor = 0.5
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("placed")
    boards = root / "boards"
    boards.mkdir()
    white_box = 'knowledge = "white-box"\ngradients = 1'  # less, and a hidden phase would train a victim first
    played = {"dev": 'knowledge = "score"', "test": white_box}
    for phase, given in played.items():
        (boards / f"{phase}.toml").write_text(BOARD.replace("{given}", given))
        open_phase(load(phase, boards), phase, root / "data")
    plan = Plan(root=str(root / "data"), db=str(root / "db.sqlite3"), boards=str(boards))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    found = {phase: load(phase, boards) for phase in played}
    yield SimpleNamespace(boards=found, root=root / "data", engine=make_engine("ray", plan), stages={})
    ray.shutdown()


def scored(place, folder, engine, phase="dev"):
    stage = place.stages.setdefault(phase, Stage(place.boards[phase], phase, place.root))
    runner = Runner(stage, read_card(folder), folder, warm.swapped)
    seen = []
    found = evaluate(runner, created="2026-03-01T00:00:00Z", engine=engine, progress=lambda *at: seen.append(at))
    assert seen and [done for done, _ in seen] == list(range(1, seen[0][1] + 1))
    return found


def different(one, other):
    """The fields of two entries that differ, with their values."""
    pairs = ((name, getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    return [(name, a, b) for name, a, b in pairs if a != b]


def test_an_attack_scores_the_same_wherever_its_shards_run(place, tmp_path, monkeypatch):
    """On a hidden phase; and nothing but bytes goes to a node."""
    folder = tiny.attack(tmp_path / "a")
    sent = []
    real = place.engine._task.remote
    monkeypatch.setattr(place.engine, "_task", SimpleNamespace(remote=lambda *a: sent.append(a) or real(*a)))
    (here, rows), (there, others) = (scored(place, folder, e, "test") for e in (local, place.engine))
    assert different(here, there) == [] and canonical(rows) == canonical(others)
    assert canonical(here) == canonical(there) and here.id == there.id
    assert len(here.tasks) == 2 and all(t.status == "scored" for t in here.tasks)
    assert there.sandbox in ("bwrap", "landlock")
    assert len(sent) > 1 and all(isinstance(shard, bytes) and isinstance(order, ray.ObjectRef) for order, shard in sent)
    order = ray.get(sent[0][0])
    assert isinstance(order, bytes) and pack(folder) in order


def test_a_defense_scores_the_same_wherever_its_shards_run(place, tmp_path):
    folder = tiny.defense(tmp_path / "d")
    (here, rows), (there, others) = (scored(place, folder, e) for e in (local, place.engine))
    assert different(here, there) == [] and canonical(rows) == canonical(others)
    assert here.id == there.id and here.track == "defense"


def test_a_crash_is_the_same_reason_there_and_cancels_the_rest(place, tmp_path):
    folder = tiny.attack(tmp_path / "a", "def attack(env, *, seed):\n    raise ValueError('here')\n")
    told = []
    for engine in (local, place.engine):
        with pytest.raises(Failure) as caught:
            scored(place, folder, engine)
        told.append((caught.value.code, caught.value.detail))
    assert told[0] == told[1] and told[0][0] == "crashed" and "line 2" in told[0][1]
