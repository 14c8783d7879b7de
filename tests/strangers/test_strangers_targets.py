"""Targets that the caller names: in `advgym.attack`, on the command line, and in files that `verify` replays."""

import json

import pytest
import torch
import toy
from msgspec import structs

import advgym
from advgym import AdvgymError, Malformed, attack, make_task, verify
from advgym.cli.attack import run_attack, run_verify
from advgym.judge.results import save
from advgym.judge.verdict import judge

TASK = "image/digits-linf"
GIVEN = {"lanes": 4, "device": "cpu", "seed": 0, "split": "test", "show": 0, "report": None}


def others(many, **more):
    """A target that is not what the victim says, for each assigned sample."""
    rows = attack(TASK, "noise", episodes=many, knowledge="decision", queries=1).samples
    return {**{s.id: (s.before + 3) % 10 for s in rows}, **more}


def test_they_are_what_is_attacked_and_verified(tmp_path):
    wanted, out = others(6), tmp_path / "r.json"
    aims = {None: 0, **wanted}
    found = attack(TASK, "pgd", episodes=6, lanes=4, goal="targeted", eps="6/16", targets=aims, out=out)
    assert {s.id: s.target for s in found.samples} == {s.id: wanted[s.id] for s in found.samples}
    assert all(s.after == s.target for s in found.samples if s.success) and found.success_rate > 0
    assert verify(out) == []
    drawn = attack(TASK, "pgd", episodes=6, lanes=4, goal="targeted")
    assert [s.target for s in drawn.samples] != [s.target for s in found.samples]


def test_one_for_each_or_one_for_all_on_the_command_line(tmp_path):
    out = tmp_path / "r.json"
    ids = [s.id for s in attack(TASK, "noise", episodes=4, knowledge="decision", queries=1).samples]
    each = [others(4).get(i, 0) for i in ids]
    assert len(ids) == 4
    pairs = ["goal=targeted", f"targets={json.dumps(each)}", "queries=20"]
    assert run_attack(TASK, "pgd", pairs, [], episodes=4, out=out, **GIVEN) == 0
    assert [s["target"] for s in json.loads(out.read_text())["samples"]] == each and verify(out) == []
    said = {s["before"] for s in json.loads(out.read_text())["samples"]}
    free = next(c for c in range(10) if c not in said)
    pairs = ["goal=targeted", "queries=20"]
    assert run_attack(TASK, "pgd", pairs, [], episodes=4, out=out, target=str(free), **GIVEN) == 0
    assert {s["target"] for s in json.loads(out.read_text())["samples"]} == {free} and verify(out) == []
    with pytest.raises(AdvgymError, match="give one of the two"):
        run_attack(TASK, "pgd", [*pairs, "targets=[1,2,3,4]"], [], episodes=4, out=out, target="1", **GIVEN)


def test_the_label_is_no_target():
    first = attack(TASK, "noise", episodes=1, knowledge="decision", queries=1).samples[0]
    with pytest.raises(AdvgymError, match=rf"says already, and the label, of samples {first.id} \({first.label}\)"):
        attack(TASK, "pgd", episodes=1, goal="targeted", targets=[first.label])


PLAYED = {
    "class": (TASK, "pgd", {"eps": "6/16"}),
    "keyword": ("text/synth-headline", "random-search", {"goal": "keyword", "queries": 5}),
    "transcript": ("speech/synth-transcribe", "noise", {"queries": 2, "knowledge": "score"}),
}


@pytest.mark.parametrize("played", PLAYED)
def test_a_file_whose_target_is_the_clean_answer_is_refused(played, tmp_path):
    """Such rows were agreed with: a targeted "success" was what the victim says to the clean sample."""
    task, agent, options = PLAYED[played]
    result = attack(task, agent, episodes=3, **{"goal": "targeted", **options})
    assert verify(result) == []
    first = result.samples[0]
    said = [first.before[0]] + [-1] * (len(first.before) - 1) if played == "keyword" else first.before
    for target in (said, None):
        made = make_task(task, **{"goal": "targeted", **options})
        again = judge(made, "test", [first.id], [first.perturbation], seed=result.seed, targets=[target])
        row = structs.replace(
            first, target=target, success=bool(again.success[0]), objective=float(again.objective[0]),
            first_success=1 if again.success[0] else -1,
        )  # fmt: skip
        path = tmp_path / "tampered.json"
        save(structs.replace(result, samples=[row, *result.samples[1:]]), path)
        said_so = f"sample {first.id}: the target {target!r} is what the victim says already, and no target"
        assert said_so in verify(path)
        assert run_verify(path, "cpu") == 1


def test_a_target_that_ties_with_the_answer_is_none():
    """Two scores alike: the objective of what is said already is zero, and no success."""
    tie = make_task(TASK, goal="targeted", victim=lambda x: torch.ones(len(x), 10))
    zero = next(i for i in range(50) if int(tie.samples("test", [i], "cpu").labels[0]) == 0)
    assert judge(tie, "test", [zero], tie.samples("test", [zero], "cpu").null(), targets=[0]).already.tolist() == [True]


@pytest.mark.parametrize(
    ("options", "targets", "says"),
    [({}, [1], "takes no targets"), ({"goal": "targeted"}, [10], "sample 145: target 10 is no class"),
     ({"goal": "targeted"}, [1, 2], "one for each of the 1 samples"), ({"goal": "targeted"}, ["cat"], "no class"),
     ({"goal": "targeted"}, {5: 1}, "none for 145"), ({"goal": "targeted"}, {145: 1, 7: 2}, "some for 7"),
     ({"goal": "targeted"}, 3, "one for each"), ({"goal": "targeted"}, [None], "sample 145: target None")],
)  # fmt: skip
def test_what_is_no_target(options, targets, says):
    with pytest.raises(AdvgymError, match=says):
        attack(TASK, "pgd", episodes=1, targets=targets, **options)


def test_words_and_transcripts_are_targets_too():
    found = attack("text/synth-headline", "random-search", episodes=2, goal="keyword", queries=5,
                   targets={None: "port"})  # fmt: skip
    word = make_task("text/synth-headline", goal="keyword").goal.parse_target("port").tolist()
    assert found.samples and all(s.target == word for s in found.samples)
    names = make_task("speech/synth-keyword", goal="targeted").goal
    assert int(names.parse_target("seven")) == 7
    with pytest.raises(AdvgymError, match="or zero, one"):
        names.parse_target("eleven")


# -- views --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lanes", [[2, 0], [1, 1], [0, 3], [-1], [], [0.5], [[0, 1]]])
def test_a_view_takes_lanes_in_their_order_alone(lanes):
    env = advgym.make(toy.task(), 3)
    env.reset(seed=0)
    with pytest.raises(Malformed, match=r"ascend|at least one lane"):
        env.view(lanes)


def test_a_view_answers_in_the_order_named():
    env = advgym.make(toy.task(), 4)
    env.reset(seed=0)
    view = env.view([1, 3])
    p = env.threat.random(5)
    whole, part = env.view().step(p)[0], view.step(p[[1, 3]])[0]
    assert part["scores"].tolist() == whole["scores"][[1, 3]].tolist()
