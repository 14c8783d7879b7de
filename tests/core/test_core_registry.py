"""Names to things: spelling, plugins, rows, ids."""

import importlib.metadata as metadata
import json
import sys
import types
import warnings

import gymnasium as gym
import pytest
import toy

import advgym
from advgym import AdvgymError, DataError, registry


@pytest.fixture
def clean_registry(monkeypatch):
    """A registry whose changes are undone."""
    registry.agents()  # a module registers once: what is imported later would be undone for good
    registry.defenses()
    for name in ("_tasks", "_victims", "_agents", "_defenses"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    ids = set(gym.registry)
    registry._plugins.cache_clear()
    yield registry
    registry._plugins.cache_clear()
    for name in set(gym.registry) - ids:
        del gym.registry[name]


@pytest.fixture
def module(monkeypatch):
    """A module of somebody else's."""
    made = types.ModuleType("somebody_elses")
    made.make = lambda spec: toy.task("field", queries=spec.threat.queries)
    made.attack = lambda env, *, seed=0: env.reset(seed=seed)
    monkeypatch.setitem(sys.modules, "somebody_elses", made)
    return made


def test_unknown_names_get_the_nearest_spelling():
    for call, near in (
        (lambda: registry.agent("pgdd"), "pgd"),
        (lambda: registry.agent("first_order"), "first-order"),
        (lambda: registry.defense("smoothin"), "smoothing"),
        (lambda: registry.task_row("image/digit-linf"), "image/digits-linf"),
        (lambda: registry.victim_row("digits-cn"), "digits-cnn"),
        (lambda: advgym.make_task("image/digits-linf", epps=0.1), "eps"),
        (lambda: advgym.make_task("image/digits-linf", knowledge="score-based"), "score"),
        (lambda: advgym.make_task("image/digits-linf", goal="target"), "targeted"),
        (lambda: advgym.make("image/digits-linf", split="tset"), "test"),
        (lambda: advgym.make("image/digits-linf", output="nunpy"), "numpy"),
        (lambda: registry.register_agent("x", kind="fields", knowledge="score"), "field"),
    ):
        with pytest.raises(AdvgymError, match=f"did you mean '{near}'"):
            call()


@pytest.mark.parametrize("options", [{"queries": 0}, {"queries": -3}, {"queries": 2.5}, {"queries": "many"},
                                     {"gradients": 0}, {"queries": None}, {"queries": float("nan")},
                                     {"queries": float("inf")}])  # fmt: skip
def test_budgets_are_whole_numbers(options):
    with pytest.raises(AdvgymError, match="whole number"):
        advgym.make_task("image/digits-linf", **options)


@pytest.mark.parametrize("lanes", [0, -1, 2.5, "4"])
def test_lanes_are_whole_numbers(lanes):
    with pytest.raises(AdvgymError, match="lanes"):
        advgym.make(toy.task(), lanes)


def test_a_task_object_is_complete():
    with pytest.raises(AdvgymError, match="complete"):
        advgym.make(toy.task(), queries=5)


def test_the_gymnasium_spelling_is_understood():
    assert registry.task_row("advgym/image.digits-linf-v0")[0] == "image/digits-linf"


def test_register_task_makes_a_task_and_an_id(clean_registry, module):
    advgym.register_task("other/thing", make="somebody_elses:make", queries=9, constraint={})
    assert advgym.make_task("other/thing").threat.queries == 9
    env = gym.make("advgym/other.thing-v0")
    obs, _ = env.reset(seed=0)
    assert obs["queries_left"] == [9]
    with pytest.raises(AdvgymError, match="make="):
        advgym.register_task("other/none")
    with pytest.raises(AdvgymError, match="make="):
        advgym.register_victim("none")


def test_add_rows(clean_registry, module, tmp_path):
    table = tmp_path / "tasks.toml"
    table.write_text(
        '[victims.v]\nmake = "m:f"\n[tasks.t]\nmake = "somebody_elses:make"\nqueries = 7\nconstraint = {}\n'
    )
    advgym.add_rows(table, "mine")
    assert advgym.make_task("mine/t").threat.queries == 7 and "v" in registry.victims()
    assert "advgym/mine.t-v0" in gym.registry
    with pytest.raises(DataError, match="nowhere"):
        advgym.add_rows(tmp_path / "nowhere.toml", "mine")
    table.write_text("[tasks\n")
    with pytest.raises(DataError, match="TOML"):
        advgym.add_rows(table, "mine")


def points(monkeypatch, **values):
    found = [metadata.EntryPoint(name=k, value=v, group="advgym") for k, v in values.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: found if group == "advgym" else [])


def test_a_plugin_registers_itself(clean_registry, module, monkeypatch):
    def load():
        advgym.register_agent("theirs", kind="field", knowledge="score")(module.attack)
        advgym.register_task("their/task", make="somebody_elses:make", constraint={})

    module.load = load

    class Eager(types.ModuleType):
        @property
        def start(self):
            load()

    monkeypatch.setitem(sys.modules, "somebody_elses", Eager("somebody_elses"))
    sys.modules["somebody_elses"].make = module.make
    points(monkeypatch, theirs="somebody_elses:start")
    assert registry.agent("theirs").attack is module.attack
    assert "theirs" in registry.agents() and "their/task" in registry.tasks()
    assert registry.agent("pgd").name == "pgd"


def test_a_broken_plugin_warns_and_is_left_out(clean_registry, monkeypatch):
    points(monkeypatch, broken="no_such_module_at_all:x")
    with pytest.warns(UserWarning, match=r"'broken'.*no_such_module_at_all"):
        assert "image/digits-linf" in registry.tasks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.tasks()  # it warns once


def test_module_colon_name_imports_first(clean_registry, tmp_path, monkeypatch):
    (tmp_path / "colon_agent.py").write_text(
        "from advgym import register_agent\n"
        "@register_agent('colon', kind='field', knowledge='score')\n"
        "def attack(env, *, seed=0):\n    'Does nothing.'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entry = registry.agent("colon_agent:colon")
    assert entry.name == "colon" and entry.summary == "Does nothing." and entry.kinds == ("field",)
    with pytest.raises(AdvgymError, match="no_such_module"):
        registry.agent("no_such_module:colon")
    with pytest.raises(AdvgymError, match="unknown agent"):
        registry.agent("colon_agent:semicolon")


def test_only_the_named_agents_file_is_imported():
    import subprocess

    code = "import sys, advgym.registry as r; r.agent('fgsm'); print('advgym.agents.search.square' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_private_files_are_no_agents():
    assert not any(name.startswith("-") or "common" in name for name in registry.agents())
    with pytest.raises(AdvgymError):
        registry.agent("_common")


def test_specs_survive_json():
    for name in ("image/digits-linf", "image/digits-pixel"):
        spec = gym.spec(advgym.ids.gym_id(name))
        again = gym.envs.registration.EnvSpec.from_json(spec.to_json())
        assert again.entry_point == spec.entry_point and again.kwargs == {"task": name}
        json.loads(spec.to_json())
        assert spec.max_episode_steps is None


def test_every_built_in_task_has_an_id():
    for name in registry.built_in_tasks():
        assert advgym.ids.gym_id(name) in gym.registry


def test_an_argument_follows_a_colon(clean_registry, module):
    """ "name:value" for victims and agents that declare one; the value may hold colons and slashes."""
    seen = []
    module.load = lambda name, *, source, width=1: seen.append((name, source, width))
    registry.register_victim("hub", make="somebody_elses:load", argument="source", width=3)
    row = registry.victim_row("hub:/a/folder:v2")[1]
    registry.load(row["make"])(name="hub:/a/folder:v2", source=row["source"], width=row["width"])
    assert seen == [("hub:/a/folder:v2", "/a/folder:v2", 3)] and "argument" not in row

    @registry.register_agent("bridge", kind="edits", knowledge="score", argument="recipe")
    def bridge(env, *, recipe, seed=0):
        """A foreign attack."""
        seen.append(recipe)

    entry = registry.agent("bridge:greedy")
    entry.attack(None, seed=0)
    assert entry.name == "bridge:greedy" and seen[-1] == "greedy" and entry.summary == "A foreign attack."
    asks = (lambda: registry.agent("bridge"), lambda: registry.victim_row("hub"), lambda: registry.agent("bridge:"))
    for call in asks:
        with pytest.raises(AdvgymError, match=r"named with its argument, as in '(bridge|hub):VALUE'"):
            call()
