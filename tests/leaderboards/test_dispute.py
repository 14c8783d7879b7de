"""Disputes lower a defense by what is verified, and by nothing that is claimed; marks need a reason."""

import copy
import hashlib
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import msgspec
import pytest
import torch
import toy
from scored import board, entry

from advgym import AdvgymError, Victim, attack
from advgym.core.rng import uniform
from advgym.leaderboards.boundary.fault import Fault
from advgym.leaderboards.boundary.guard import DefenseFailed
from advgym.leaderboards.entries.dispute import DisputeRefused, held, lower, mark
from advgym.leaderboards.entries.entry import Rows, RowSet, canonical
from advgym.leaderboards.runs.facts import measure
from advgym.leaderboards.scoring.headline import headline_defense
from advgym.leaderboards.scoring.task_scores import rank, score_task

SEEDS = [3, 4]
BOARD = board("toy/field")


def defended(task, agents=("noise", "random-search"), queries=2):
    """A defense scored against weak attacks: (entry, rows)."""
    sets, scores = [], []
    base = measure(task, "test", list(range(40)), SEEDS, undefended=0.9)
    for name in agents:
        own = []
        for seed in SEEDS:
            r = attack(task, name, episodes=40, lanes=8, seed=seed)
            own.append(RowSet(task=task.name, attack=name, seed=seed, split="test", options={}, samples=r.samples))
        sets += own
        scores.append(score_task(own, msgspec.structs.replace(base, attack=name)))
    rows = Rows(sets=sets)
    head = headline_defense(BOARD, sets, scores, SEEDS)
    made = entry(
        0, track="defense", tasks=scores, columns=head.columns, run_seeds=SEEDS,
        rows=hashlib.sha256(canonical(rows)).hexdigest(), flags=head.flags,
    )  # fmt: skip
    return msgspec.structs.replace(made, headline=head.interval), rows


@pytest.fixture(scope="module")
def scene():
    task = toy.task(eps=0.25, queries=2)
    made, rows = defended(task)
    strong = attack(toy.task(eps=0.25, queries=20), "pgd", episodes=40, lanes=8)
    return task, made, rows, strong


def dispute(scene, result, **over):
    task, made, rows, _ = scene
    return lower(over.get("entry", made), rows, result, BOARD, over.get("task", task), seed=9, created="2026-02-01")


def test_perturbations_that_work_lower_the_worst_case(scene):
    _, made, rows, strong = scene
    before = held(made, rows, "toy/field")
    new, more = dispute(scene, strong)
    fallen = {s.id for s in more.sets[-1].samples}
    assert fallen and fallen == before & {s.id for s in strong.samples if s.success}
    assert held(new, more, "toy/field") == before - fallen
    runs = [{s.id for a in rows.sets if a.seed == k for s in a.samples if s.success} for k in SEEDS]
    right = {s.id for s in rows.sets[0].samples}
    want = sum(len(right - lost - fallen) for lost in runs) / (2 * 40)
    assert new.headline.value == pytest.approx(want) and new.headline.value < made.headline.value
    assert new.headline.low < made.headline.low
    assert (new.supersedes, new.cause, new.disputes) == (made.id, "dispute", 1)
    assert new.rows == hashlib.sha256(canonical(more)).hexdigest()
    assert "dispute:1" in new.flags[-1] and new.created == "2026-02-01"
    assert [e.id for _, e in rank([made, new])] == [new.id]
    assert msgspec.json.decode(canonical(more), type=Rows) == more


def test_the_same_again_lowers_nothing_and_a_second_one_is_added(scene):
    task, _, _, strong = scene
    half = copy.deepcopy(strong)
    half.samples = half.samples[:18]
    new, more = dispute(scene, half)
    with pytest.raises(DisputeRefused, match="all of them fail"):
        lower(new, more, half, BOARD, task, seed=9, created="c")
    last, most = lower(new, more, strong, BOARD, task, seed=9, created="c")
    assert (last.supersedes, last.disputes) == (new.id, 2) and most.sets[-1].attack == "dispute:2"
    assert last.headline == dispute(scene, strong)[0].headline


def test_nothing_that_a_result_says_is_believed(scene):
    """Outside the ball, clean, NaN or garbage: claims of success count for nothing."""
    _, _, _, strong = scene
    wide = attack(toy.task(eps=1.0, queries=20), "pgd", episodes=40, lanes=8)
    outside = [s for s in wide.samples if s.success and s.distance > 0.25]
    assert outside
    for rows in (outside, [msgspec.structs.replace(s, perturbation=None) for s in strong.samples]):
        claim = msgspec.structs.replace(strong, samples=[msgspec.structs.replace(s, success=True) for s in rows])
        with pytest.raises(DisputeRefused, match="all of them fail") as caught:
            dispute(scene, claim)
        assert caught.value.code == "nothing-lowered"


def test_what_an_author_calls_a_failure_is_judged_all_the_same(scene):
    strong = copy.deepcopy(scene[3])
    for s in strong.samples:
        s.success = False
    assert dispute(scene, strong)[0].headline == dispute(scene, scene[3])[0].headline


@pytest.mark.parametrize("garbage", [[1, 2], "text", {"field": "x"}, {"edits": [[999, 0]]}, 7])
def test_garbage_is_refused(scene, garbage):
    strong = copy.deepcopy(scene[3])
    strong.samples[-1].perturbation = garbage
    for s in strong.samples:
        s.perturbation = garbage
    with pytest.raises(DisputeRefused, match="no perturbation") as caught:
        dispute(scene, strong)
    assert caught.value.code == "bad-result" and "advgym attack TASK --out FILE" in caught.value.text


def test_other_tasks_tracks_and_samples_are_refused(scene):
    _, made, _, strong = scene
    with pytest.raises(DisputeRefused, match="is an attack") as caught:
        dispute(scene, strong, entry=msgspec.structs.replace(made, track="attack"))
    assert (caught.value.code, caught.value.blame) == ("not-disputable", "participant")
    with pytest.raises(DisputeRefused, match="the result is on toy/edits"):
        dispute(scene, msgspec.structs.replace(strong, task="toy/edits"))
    with pytest.raises(DisputeRefused, match="the result is on"):
        dispute(scene, strong, task=toy.task("edits"))
    for ids in ([10**9], [-1], [10]):  # sample 10 is one that the victim has wrong
        moved = [msgspec.structs.replace(s, id=i) for s, i in zip(strong.samples, ids, strict=False)]
        with pytest.raises(DisputeRefused, match="held so far"):
            dispute(scene, msgspec.structs.replace(strong, samples=moved))
    with pytest.raises(DisputeRefused, match="twice"):
        dispute(scene, msgspec.structs.replace(strong, samples=strong.samples * 2))


def test_a_target_of_ones_own_choosing_proves_nothing():
    """On a targeted board only the targets that were dealt count."""
    task = toy.task(eps=0.5, queries=1, goal="targeted")
    made, rows = defended(task, agents=("noise",))
    good = attack(toy.task(eps=0.5, queries=20, goal="targeted"), "pgd", episodes=40, lanes=8, seed=SEEDS[0])
    new, more = lower(made, rows, good, BOARD, task, seed=9, created="c")
    dealt = {(s.id, s.target) for rs in rows.sets for s in rs.samples}
    assert {(s.id, s.target) for s in more.sets[-1].samples} <= dealt and new.headline.value < made.headline.value
    for s in good.samples:
        s.target = s.before  # its own class
    with pytest.raises(DisputeRefused, match="held so far"):
        lower(made, rows, good, BOARD, task, seed=9, created="c")


def test_a_defense_that_stops_answering_loses_what_stops_it(scene):
    """One process for each sample then; the perturbation must lie within the constraint all the same."""
    task, made, rows, strong = scene
    bad = [s.id for s in strong.samples if s.success][:2]
    opened = []

    @contextmanager
    def behind():
        opened.append(1)

        def model(x):
            if any(bool((x == far[i]).all(1).any()) for i in bad):
                raise DefenseFailed(Fault(code="cpu-limit", text="3 s used"))
            return plain(x)

        yield replace(task, victim=Victim(model, access="scores"))

    batch = task.samples("test", bad)
    x = batch.inputs(batch.look(batch.load([s.perturbation for s in strong.samples if s.id in bad])).form)
    far, plain = dict(zip(bad, x, strict=True)), task.victim
    claim = msgspec.structs.replace(strong, samples=[s for s in strong.samples if s.id in bad])
    new, more = lower(made, rows, claim, BOARD, task, seed=9, created="c", behind=behind)
    assert {(s.id, s.reason) for s in more.sets[-1].samples} == {(i, "cpu-limit") for i in bad} and len(opened) == 3
    assert held(new, more, "toy/field") == held(made, rows, "toy/field") - set(bad)
    assert new.headline.value < made.headline.value
    wide = attack(toy.task(eps=1.0, queries=20), "pgd", episodes=40, lanes=8)
    outside = [s for s in wide.samples if s.id in bad and s.distance > 0.25]
    batch = task.samples("test", [s.id for s in outside])
    far.update(zip([s.id for s in outside], batch.inputs(batch.load([s.perturbation for s in outside])), strict=True))
    with pytest.raises(DisputeRefused, match="all of them fail"):
        claim = msgspec.structs.replace(strong, samples=outside)
        lower(made, rows, claim, BOARD, task, seed=9, created="c", behind=behind)


def test_a_defense_that_has_the_clean_input_wrong_by_now_does_not_hold_it(scene):
    task, made, rows, strong = scene
    claim = msgspec.structs.replace(strong, samples=[s for s in strong.samples if s.success][:3])
    liar = replace(task, victim=Victim(lambda x: task.victim(x).roll(1, 1), access="scores"))
    new, more = lower(made, rows, claim, BOARD, task, seed=9, created="c", behind=lambda: nullcontext(liar))
    assert {s.reason for s in more.sets[-1].samples} == {"inconsistent"} and len(more.sets[-1].samples) == 3
    assert new.headline.value < made.headline.value


def test_luck_does_not_break_a_randomised_defense():
    """A harmless change that fools two draws of five: no verdict, however often it is handed in."""
    layer = toy.linear()

    class Coin(torch.nn.Module):
        def forward(self, x, keys):
            scores = layer(x)
            clean = (x.unsqueeze(1) == toy.samples()).all(2).any(1)
            flip = (uniform(0, keys) < 0.4) & ~clean
            return torch.where(flip.unsqueeze(1), scores.roll(1, 1), scores)

    task = toy.task(victim=Victim(Coin(), keyed=True), knowledge="score", eps=0.25, queries=1)
    made, rows = defended(task, agents=("noise",))
    nudged = attack(toy.task(eps=0.25, knowledge="score", queries=1), "noise", episodes=40, lanes=8, seed=77)
    harmless = msgspec.structs.replace(nudged, samples=[s for s in nudged.samples if not s.success])
    fell = 0
    for seed in range(20):
        try:
            fell += len(lower(made, rows, harmless, BOARD, task, seed=seed, created="c")[1].sets[-1].samples)
        except DisputeRefused:
            continue
    tries = 20 * len(held(made, rows, "toy/field") & {s.id for s in harmless.samples})
    assert tries > 200 and fell / tries < 0.06  # one majority of nine would let 27 % pass


def test_marks_are_new_versions_with_a_reason(scene):
    made = scene[1]
    marked = mark(made, created="now", footnote="crashed\non other machines", unreliable=True)
    assert marked.unreliable and not marked.external and marked.footnote == "crashed on other machines"
    assert (marked.supersedes, marked.cause, marked.disputes) == (made.id, "mark", 0)
    assert marked.headline == made.headline
    again = mark(marked, created="later", footnote="repaired", unreliable=False)
    assert not again.unreliable and again.footnote == "crashed on other machines; repaired"
    assert [place for place, _ in rank([made, marked, again])] == [1]
    assert mark(made, created="c", footnote="from a paper", external=True).external
    for empty in ("", " \n"):
        with pytest.raises(AdvgymError, match="footnote"):
            mark(made, created="c", footnote=empty, external=True)
