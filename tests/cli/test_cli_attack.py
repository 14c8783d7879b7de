"""`advgym attack` and `advgym verify`."""

import json

import pytest

TASK = "image/digits-linf"
SMALL = ("--episodes", 8, "--lanes", 4, "--set", "queries=12")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A true result file."""
    from advgym import attack

    path = tmp_path_factory.mktemp("stored") / "r.json"
    attack(TASK, "pgd", episodes=8, lanes=4, out=path, queries=20, eps="3/16", settings={"step_size": 0.2})
    return path


def test_summary_file_examples_and_report(advgym, tmp_path):
    out, page = tmp_path / "r.json", tmp_path / "r.html"
    settings = ("--set", "eps=3/16", "--set", "agent.step_size=0.25")
    answer = advgym("attack", TASK, "--agent", "pgd", *SMALL, *settings, "--out", out, "--show", 2, "--report", page)
    assert answer.code == 0, answer.err
    for word in ("pgd", "random control", "success", "clean accuracy", "robust accuracy", "examples", " -> "):
        assert word in answer.out
    result = json.loads(out.read_text())
    assert result["settings"] == {"step_size": 0.25}
    assert result["threat"]["constraint"]["eps"] == 0.1875
    assert result["threat"]["queries"] == 12
    assert str(out) in answer.err
    assert "<h1>" in page.read_text()
    assert advgym("verify", out).code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.html", "r.json"]


def test_decision_knowledge_can_be_asked_for(advgym, tmp_path):
    out = tmp_path / "r.json"
    assert advgym("attack", TASK, "--agent", "noise", *SMALL, "--set", "knowledge=score", "--out", out).code == 0
    assert json.loads(out.read_text())["threat"]["knowledge"] == "score"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["image/digit-linf", "--agent", "pgd"], "did you mean 'image/digits-linf'"),
        ([TASK, "--agent", "pgdd"], "did you mean 'pgd'"),
        ([TASK, "--agent", "pgd", "--set", "stps=3"], "did you mean 'steps'"),
        ([TASK, "--agent", "pgd", "--set", "steps"], "k=v"),
        ([TASK, "--agent", "pgd", "--set", "eps=wide"], "eps"),
        ([TASK, "--agent", "pgd", "--set", "goal=targetted"], "did you mean 'targeted'"),
        ([TASK, "--agent", "pgd", "--set", "victim=digits-cn"], "did you mean 'digits-cnn'"),
        ([TASK, "--agent", "greedy"], "plays edits"),
        ([TASK, "--agent", "pgd", "--split", "tset"], "did you mean 'test'"),
        ([TASK, "--agent", "pgd", "--device", "gpu"], "cpu"),
        ([TASK, "--agent", "pgd", "--defense", "no-such"], "unknown defense"),
        ([TASK, "--agent", "nowhere/agent.py"], "advgym new agent"),
    ],
)
def test_errors_of_the_user_exit_2(advgym, args, says):
    answer = advgym("attack", *args)
    assert answer.code == 2
    assert says in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


def test_out_is_no_folder(advgym, tmp_path):
    answer = advgym("attack", TASK, "--agent", "pgd", "--out", tmp_path)
    assert answer.code == 2
    assert "is a folder" in answer.err


def test_an_agent_that_always_crashes_exits_1(advgym, tmp_path):
    own = tmp_path / "crasher.py"
    own.write_text("def attack(env, *, seed=0):\n    env.reset(seed=seed)\n    raise ValueError('no [idea]')\n")
    answer = advgym("attack", TASK, "--agent", own, *SMALL)
    assert answer.code == 1
    assert "the agent crashed on 8 of 8 samples" in answer.err and "robust accuracy not known" in answer.out
    assert "no [idea]" in answer.err
    assert "crasher" in answer.out


def test_own_defense_by_path(advgym, tmp_path):
    guard = tmp_path / "guard.py"
    guard.write_text("def defend(victim, task, *, level=1):\n    return victim\n")
    out = tmp_path / "r.json"
    assert advgym("attack", TASK, "--agent", "noise", *SMALL, "--defense", f"{guard}:level=2", "--out", out).code == 0
    assert json.loads(out.read_text())["defense"] != "none"
    answer = advgym("verify", out)
    assert answer.code == 2
    assert "own" in answer.err


# -- verify --------------------------------------------------------------------------------------------------------
def tampered(stored, tmp_path, change):
    raw = json.loads(stored.read_text())
    change(raw)
    path = tmp_path / "tampered.json"
    path.write_text(json.dumps(raw))
    return path


def flip(raw):
    raw["samples"][0]["success"] = not raw["samples"][0]["success"]


def swap(raw):
    raw["samples"][0]["perturbation"] = raw["samples"][1]["perturbation"]


def inflate(raw):
    raw["success_rate"] = min(1.0, raw["success_rate"] + 0.125) if raw["success_rate"] < 1 else 0.5


def spend(raw):
    raw["samples"][0]["queries"] = raw["threat"]["queries"] + 1


def widen(raw):
    raw["options"]["eps"] = "1/16"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (flip, "success"),
        (swap, "sample"),
        (inflate, "success_rate"),
        (spend, "queries"),
        (widen, "valid"),
    ],
)
def test_verify_finds_what_was_changed(advgym, stored, tmp_path, change, says):
    answer = advgym("verify", tampered(stored, tmp_path, change))
    assert answer.code == 1
    assert answer.out.startswith("false")
    assert says in answer.out


def test_verify_agrees_with_the_truth(advgym, stored):
    answer = advgym("verify", stored)
    assert answer.code == 0
    assert answer.out.startswith("true")


@pytest.mark.parametrize("text", [None, "", "{", '{"task": "x"}', "[]"])
def test_verify_of_what_is_no_result_exits_2(advgym, tmp_path, text):
    path = tmp_path / "r.json"
    if text is not None:
        path.write_text(text)
    answer = advgym("verify", path)
    assert answer.code == 2
    assert "r.json" in answer.err
    assert "Traceback" not in answer.err


def test_verify_of_a_perturbation_that_is_none_exits_2(advgym, stored, tmp_path):
    def break_it(raw):
        raw["samples"][0]["perturbation"] = {"field": "AAAA"}

    assert advgym("verify", tampered(stored, tmp_path, break_it)).code == 2


@pytest.mark.parametrize("change", [lambda raw: None, flip], ids=["true", "false"])
def test_verify_of_an_older_file_says_which_rules_changed(advgym, stored, tmp_path, change):
    from advgym.judge.contract import CHANGES, CONTRACT

    assert json.loads(stored.read_text())["contract"] == CONTRACT
    assert "note" not in advgym("verify", stored).out

    def older(raw):
        del raw["contract"]
        change(raw)

    answer = advgym("verify", tampered(stored, tmp_path, older))
    assert answer.code == (0 if change is not flip else 1), "a note is no disagreement"
    said = " ".join(answer.out.split())
    assert f"made under contract 1; this version follows {CONTRACT}" in said
    assert all(text in said for texts in CHANGES.values() for text in texts)
    assert ("may come of these rules" in said) == (change is flip)
    newer = advgym("verify", tampered(stored, tmp_path, lambda raw: raw.update(contract=CONTRACT + 1)))
    assert newer.code == 0 and "check it with a newer one" in " ".join(newer.out.split())
