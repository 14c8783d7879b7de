"""Settings are typed and checked, of agents and of defenses; an agent that crashed has shown no robustness."""

import json
import math

import numpy as np
import pytest
import toy

from advgym import AdvgymError, attack, make_task, registry
from advgym.cli.attack import run_attack
from advgym.lib.settings import Range, checked, described, settings_of, type_of

GIVEN = {"episodes": 4, "lanes": 4, "device": "cpu", "seed": 0, "split": "test", "out": None, "show": 0, "report": None}


def own(env, *, steps=3, rate=0.5, loss="tanh", fast=False, seed=0):
    """An attack."""


ALLOWED = {"steps": Range(1), "rate": Range(0, 1), "loss": ("tanh", "ce")}


@pytest.mark.parametrize(
    ("name", "value", "is_now"),
    [("steps", 4, 4), ("steps", np.int64(4), 4), ("steps", 1e3, 1000), ("rate", 1, 1.0), ("rate", np.float32(0.5), 0.5),
     ("loss", "ce", "ce"), ("fast", True, True)],
)  # fmt: skip
def test_values_that_fit(name, value, is_now):
    found = checked("own", own, {name: value}, ALLOWED)[name]
    assert found == is_now and type(found) is type(is_now)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("steps", 0, "a whole number of at least 1, not 0"), ("steps", -3, "not -3"), ("steps", True, "not True"),
     ("steps", 2.5, "not 2.5"), ("steps", "3", "not '3'"), ("steps", math.nan, "not nan"), ("steps", None, "not None"),
     ("rate", math.inf, "not inf"), ("rate", 1.5, "a number from 0 to 1, not 1.5"), ("rate", "half", "not 'half'"),
     ("rate", False, "not False"), ("loss", "thanh", "did you mean 'tanh'"), ("loss", 3, "not 3"),
     ("fast", 1, "true or false, not 1"), ("fast", "yes", "not 'yes'"), ("stesp", 1, "did you mean 'steps'")],
)  # fmt: skip
def test_values_that_do_not(name, value, says):
    with pytest.raises(AdvgymError) as error:
        checked("own", own, {name: value}, ALLOWED)
    assert says in str(error.value)


@pytest.mark.parametrize("what", ["agents", "defenses"])
def test_every_number_has_a_range_that_holds_its_default(what):
    for name, entry in getattr(registry, what)().items():
        function = entry.attack if what == "agents" else entry.defend
        for key, default in settings_of(function).items():
            if not entry.origin.startswith("advgym.") or type_of(function, key) not in (int, float):
                continue
            assert isinstance(entry.allowed.get(key), Range), f"{name}: {key}"
            assert default in entry.allowed[key]
        assert set(described(function, entry.allowed)) == set(settings_of(function))


# Each printed "robust accuracy 100.0 %", ended in a traceback, or was taken for true.
@pytest.mark.parametrize(
    ("task", "agent", "setting"),
    [("image/digits-linf", "pgd", "steps=-3"), ("image/digits-linf", "pgd", "steps=0"),
     ("image/digits-linf", "pgd", "steps=true"), ("image/digits-linf", "pgd", "step_size=NaN"),
     ("image/digits-linf", "pgd", "random_start=maybe"), ("image/digits-linf", "square", "p_init=2"),
     ("graph/karate-global", "prbcd", "loss=tahn"), ("graph/karate-edge", "dice", "tries=0"),
     ("graph/karate-edge", "dice", "cut=7"), ("text/synth-wordswap", "beam", "width=0"),
     ("text/synth-wordswap", "alzantot", "population=1"), ("text/synth-wordswap", "additive", "most=0"),
     ("text/synth-wordswap", "textattack:greedy", "space=tabel"), ("image/digits-linf", "noise", "draws=0")],
)  # fmt: skip
def test_from_the_command_line(task, agent, setting):
    with pytest.raises(AdvgymError, match=f"{setting.split('=')[0]}.* of {agent}"):
        run_attack(task, agent, [setting], [], **GIVEN)


@pytest.mark.parametrize("given", [{"draws": 0}, {"rate": 2}, {"noise": math.nan}, {"draws": True}, {"drawz": 3}])
def test_defenses_too(given):
    with pytest.raises(AdvgymError, match="smoothing"):
        make_task("image/digits-linf", defenses=[("smoothing", given)])


def test_the_seed_is_no_setting():
    with pytest.raises(AdvgymError, match="The seed stands beside"):
        attack(toy.task(), "pgd", settings={"seed": 3})


# -- a crash is no robustness -------------------------------------------------------------------------------------
CRASH = "def attack(env, *, seed=0):\n    obs, _ = env.reset(seed=seed)\n    {body}\n"


@pytest.mark.parametrize(
    ("body", "says"),
    [("raise ValueError('no')", "the agent crashed on 4 of 4 samples, which shows no robustness"),
     ("pass", "the agent asked nothing and changed nothing, which shows no robustness")],
)  # fmt: skip
def test_no_figure_for_an_agent_that_did_not_play(tmp_path, capsys, body, says):
    path, out = tmp_path / f"broken_{body[:4]}.py", tmp_path / "r.json"
    path.write_text(CRASH.format(body=body))
    code = run_attack("image/digits-linf", str(path), [], [], **{**GIVEN, "out": out})
    told = capsys.readouterr()
    assert code == 1 and says in " ".join(told.err.split())
    assert "robust accuracy not known" in told.out and "robust accuracy 1" not in told.out
    flags = json.loads(out.read_text())["flags"]
    assert any("crashed" in f or "asked nothing" in f for f in flags)


def test_a_crash_in_one_batch_of_two_is_none_either(tmp_path, capsys):
    path = tmp_path / "half.py"
    path.write_text(CRASH.format(body="if env.num_envs == 1: raise ValueError('last batch')"))
    code = run_attack("image/digits-linf", str(path), [], [], **{**GIVEN, "lanes": 3})
    assert code == 1 and "the agent crashed on 1 of 4 samples" in " ".join(capsys.readouterr().err.split())
