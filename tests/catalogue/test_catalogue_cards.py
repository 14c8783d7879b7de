"""`advgym.describe`, `advgym.list_*`: every name has a card, and what cards say of tasks is what making them shows."""

import json

import pytest

import advgym
from advgym import AdvgymError, registry
from advgym.catalogue.describe import papers, stored_card
from advgym.catalogue.facts import facts, measured, plays, stored
from advgym.core.offers import fits
from advgym.core.task import make_task

MADE = ("image/digits-linf", "image/digits-pixel", "text/synth-wordswap", "graph/karate-edge", "graph/sbm-edge",
        "graph/karate-inject", "graph/sbm-continuous", "speech/synth-keyword", "speech/synth-bands")  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_the_stored_facts_are_what_making_a_task_shows(name):
    assert stored()[name] == measured(name), "run `python -m advgym.catalogue.facts`"


def test_every_task_that_ships_has_its_facts():
    missing = set(registry.built_in_tasks()) - set(stored())
    assert not missing, f"run `python -m advgym.catalogue.facts {' '.join(sorted(missing))}`"
    assert set(stored()) <= set(registry.built_in_tasks())


def test_who_fits_is_who_plays():
    for name in ("image/digits-linf", "text/synth-wordswap", "graph/karate-edge"):
        made = make_task(name)
        for entry in registry.agents().values():
            assert plays(entry, facts(name)) == fits(entry, made), (name, entry.name)


def test_every_name_has_a_card():
    everything = [*advgym.list_tasks(), *advgym.list_agents(), *advgym.list_defenses(), *advgym.list_victims()]
    for name in everything:
        card = advgym.describe(name)
        assert card.name == name and json.loads(card.to_json())["what"] in ("task", "agent", "defense", "victim")
        assert repr(card).startswith(name) and card._repr_html_().startswith("<h4>")


def test_a_task():
    card = advgym.describe("image/digits-linf", sample=3)
    assert card.kind == "field" and card.constraint == {"eps": "2/16", "lattice": 16} and card.goals[0] == "untargeted"
    assert card.sample.startswith("test 3 (") and card.action == "float32 (1, 8, 8), -1 to 1"
    assert card.max_episode_steps == 500 and card.reward_threshold == 8.22
    assert {"pgd", "square"} <= set(card.agents) and "jpeg" in card.defenses and "jaccard" not in card.defenses
    assert card.command == "advgym attack image/digits-linf --agent pgd"
    assert advgym.describe("advgym/image.digits-linf-v0").name == "image/digits-linf"
    own = advgym.describe("text/wordswap")
    assert own.gives == ["victim=", "samples= or dataset="] and "--set victim=" in own.command
    assert "a sample is a text" in own.offers.values()


def test_an_agent_a_defense_a_victim():
    card = advgym.describe("pgd")
    assert card.papers == ["Madry et al. 2018"] and card.knowledge == "white-box" and card.kinds == ["field"]
    s = card.settings[0]
    assert (s.name, s.type, s.allowed, s.default) == ("steps", "a whole number", "at least 1", "40")
    assert "image/digits-linf" in card.tasks and "text/synth-wordswap" not in card.tasks
    assert set(advgym.describe("nettack").needs) == {"target", "flips"}
    bridge = advgym.describe("textattack")
    assert bridge.argument == "recipe" and "textattack:RECIPE" in bridge.command
    card = advgym.describe("jaccard")
    assert card.domains == ["graph"] and card.settings[0].name == "threshold"
    card = advgym.describe("digits-cnn")
    assert (
        card.weights == "shipped" and 0.9 < card.measured["clean_accuracy"] <= 1 and "image/digits-linf" in card.tasks
    )
    assert stored_card("no-such-victim") == ({}, "trained when first used")


def test_commands_of_cards_are_ones(advgym_line):
    """What a card says to type is taken by the command line (attacks with few samples)."""
    for name in ("pgd", "greedy", "nettack", "jpeg"):
        assert advgym_line(advgym.describe(name).command + " --episodes 2 --set queries=4") in (0, 1)


@pytest.fixture
def advgym_line(capsys):
    from advgym.cli.app import main

    def call(line):
        code = main(line.split()[1:])
        capsys.readouterr()
        return code

    return call


def test_lists():
    assert advgym.list_tasks("image/*-linf") == ["image/digits-linf", "image/mnist-linf"]
    assert advgym.list_tasks(domain="speech") and not advgym.list_tasks("image/*", "speech")
    assert set(advgym.list_agents(task="graph/karate-edge")) <= set(advgym.list_agents(domain="graph"))
    assert "nettack" in advgym.list_agents(domain="graph") and "nettack" not in advgym.list_agents(domain="image")
    assert "smoothing" in advgym.list_defenses(domain="text") and "jpeg" not in advgym.list_defenses(domain="text")
    assert "digits-cnn" in advgym.list_victims("digits-*", "image")
    for wrong in (lambda: advgym.list_tasks(""), lambda: advgym.list_tasks(domain="music")):
        with pytest.raises(AdvgymError):
            wrong()


def test_names_that_are_none():
    with pytest.raises(AdvgymError, match=r"did you mean .*'pgd'"):
        advgym.describe("pdg")
    with pytest.raises(AdvgymError, match="an empty one"):
        advgym.describe(" ")
    with pytest.raises(AdvgymError, match="unknown kind of name"):
        advgym.describe("pgd", "agnet")
    with pytest.raises(AdvgymError, match="sample= is of a task"):
        advgym.describe("pgd", sample=0)


def test_papers_are_read_off_docstrings():
    def attack():
        """An attack (Madry et al. 2018), after Xu, Evans and Qi (2018); see Madry et al. 2018."""

    assert papers(attack) == ["Madry et al. 2018", "Xu, Evans and Qi 2018"]


def test_public_names_alone():
    assert dir(advgym) == sorted(advgym.__all__)
    assert all(getattr(advgym, name) is not None for name in dir(advgym))
