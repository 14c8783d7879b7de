"""Reading settings, defenses, agents."""

import pytest

from advgym.cli.printing import number, percent, spark
from advgym.cli.values import pair, read_agent, read_defense, split_settings, value
from advgym.errors import AdvgymError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", 3), ("-1.5e-2", -0.015), ("true", True), ("[1, 2.5]", [1, 2.5]), ("2/16", "2/16"), ("null", "null"),
     ("NaN", "NaN"), ("Infinity", "Infinity"), ('{"a": 1}', '{"a": 1}'), ("pgd", "pgd"), ("", "")],
)  # fmt: skip
def test_value(text, expected):
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_pair_keeps_later_equals_signs():
    assert pair("a=b=c") == ("a", "b=c")
    with pytest.raises(AdvgymError, match="k=v"):
        pair("steps")


def split(*pairs):
    return split_settings(list(pairs), "agent", ["steps", "shared"], "task", ["eps", "shared"])


def test_settings_go_where_they_belong():
    assert split("steps=3", "eps=0.1", "shared=1") == ({"steps": 3, "shared": 1}, {"eps": 0.1})
    assert split("task.shared=1", "agent.steps=2") == ({"steps": 2}, {"shared": 1})
    assert split("steps=1", "steps=2") == ({"steps": 2}, {})


def test_unknown_settings_name_both_lists():
    with pytest.raises(AdvgymError) as caught:
        split("epz=1")
    assert "did you mean 'eps'" in str(caught.value)
    assert "shared, steps" in str(caught.value)
    assert "eps, shared" in str(caught.value)
    with pytest.raises(AdvgymError, match="did you mean 'steps'"):
        split("agent.stepz=1")
    with pytest.raises(AdvgymError, match="eps"):
        split("task.steps=1")


def test_defenses():
    from advgym import register_defense

    @register_defense("values-test")
    def defend(victim, task, *, level=1, sizes=()):
        """Nothing."""
        return victim

    assert read_defense("values-test") == ("values-test", {})
    assert read_defense("values-test:level=2,sizes=[1,2]") == ("values-test", {"level": 2, "sizes": [1, 2]})
    with pytest.raises(AdvgymError, match="did you mean 'level'"):
        read_defense("values-test:levl=2")
    with pytest.raises(AdvgymError, match="did you mean 'values-test'"):
        read_defense("values-tset")


def test_agents_by_path(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text("def attack(env, *, seed=0):\n    env.reset(seed=seed)\n")
    (tmp_path / "card.toml").write_text('kind = "edits"\nknowledge = "score"\nproposals = 4\n')
    entry = read_agent(str(own))
    assert (entry.name, entry.kinds, entry.knowledge, entry.proposals) == ("mine", ("edits",), "score", 4)
    assert read_agent(str(own)) is entry


@pytest.mark.parametrize(
    ("code", "card", "says"),
    [
        ("x = 1\n", "", "no function `attack"),
        ("import nothing_of_that_name\n", "", "ModuleNotFoundError"),
        ("def attack(env, *, seed=0): ...\n", "kind = 'feild'\n", "did you mean 'field'"),
        ("def attack(env, *, seed=0): ...\n", "knowledge = 'all'\n", "white-box"),
        ("def attack(env, *, seed=0): ...\n", "name = 'pgd'\n", "another `name`"),
        ("def attack(env, *, seed=0): ...\n", "proposals = 0\n", "at least 1"),
        ("def attack(env, *, seed=0): ...\n", "name = \n", "card in TOML"),
    ],
)
def test_broken_agents_say_what_is_wrong(tmp_path, code, card, says):
    (tmp_path / "agent.py").write_text(code)
    (tmp_path / "card.toml").write_text(card)
    with pytest.raises(AdvgymError, match=says):
        read_agent(str(tmp_path))


def test_a_missing_path_names_the_next_action(tmp_path):
    with pytest.raises(AdvgymError, match="advgym new agent"):
        read_agent(str(tmp_path))
    with pytest.raises(AdvgymError, match="no file"):
        read_agent("./nowhere.py")


def test_numbers():
    assert percent(0.5) == "50 %"
    assert number(1234.5) == "1,234"
    assert spark([(1, 0.0), (2, 1.0)]) == "▁█"
