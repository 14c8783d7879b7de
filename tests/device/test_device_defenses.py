"""Every defense on every embedded task that it fits, attacked on the card."""

import pytest
import torch
from same import AGENTS, TASKS, made, play_both

from advgym import AdvgymError, Victim, registry
from advgym.core.task import defend

LARGE = ("graph/sbm-global", "graph/sbm-rewire", "graph/sbm-inject")  # the karate club plays the same code
pytestmark = pytest.mark.device
QUICK = {"samples": 8, "epochs": 1, "queries": 2, "steps": 1}
TRAINED = [name for name, entry in registry.defenses().items() if ".defenses.training." in entry.origin]
LEARNING = ("denoised-smoothing", "mrr", "purifier", "rectifier")  # of clean images, whatever the task
# One loop trains them on the CPU, and what is left is a victim as any: one of them plays every task, the others these.
FEW = (
    "graph/karate-edge",
    "graph/sbm-continuous",
    "image/digits-linf",
    "speech/synth-transcribe",
    "text/synth-wordswap",
)
SETTINGS = {
    **dict.fromkeys(TRAINED, QUICK),
    "fast-training": {**QUICK, "watch": 4},
    "smoothing": {"draws": 1},
    "gaussian-smoothing": {"draws": 1},
    "rover": {"draws": 1},
    "magnet": {"samples": 256, "epochs": 12},
    "reformer": {"samples": 256, "epochs": 30, "eps": 0.1},
    "distribution": {"samples": 64},
    "temporal-dependency": {"samples": 32},
    "mrr": {"samples": 128, "epochs": 1, "side": 4, "atoms": 12, "modules": 1},
    "purifier": {"samples": 128, "epochs": 4, "time": 0.1, "steps": 1, "width": 4},
    "rectifier": {"samples": 64, "epochs": 1, "blocks": 1, "width": 4, "eps": 0.1},
    "denoised-smoothing": {"samples": 64, "epochs": 2, "blocks": 1, "width": 4, "draws": 1, "sigma": 0.1},
    "feature-denoising": {"samples": 8, "epochs": 1, "queries": 2, "steps": 1},
}
VICTIMS = {("text/synth-wordswap", "word-bounds"): {"victim": "synth-bag"}}  # transformers have no such bounds
# What a defense says of a task that it cannot guard.
CANNOT = ("unknown split", "has no split", "offers no", "bounds cannot be had")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVGYM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def guarded(name, defense):
    """The defended task, or None where the defense does not fit."""
    task = made(name, 4, **VICTIMS.get((name, defense), {}))
    kind = task.samples("test", [0]).kind
    if kind not in registry.defense(defense).kinds:
        return None
    try:
        return defend(task, [(defense, SETTINGS.get(defense, {}))])
    except AdvgymError as error:
        assert any(words in str(error) for words in CANNOT), error
        return None


# They guard training runs: tests/core/test_core_poison.py.
SCREENS = ("activation-clustering", "spectral-signatures")


@pytest.mark.parametrize("defense", [d for d in registry.defenses() if d not in SCREENS])
def test_defenses_answer_the_same_on_the_card(defense):
    domains, wrong, played = registry.defense(defense).domains, {}, 0
    for name in TASKS:
        if "-poison" in name or name in LARGE or (domains and name.split("/")[0] not in domains):
            continue
        if defense in (*TRAINED, *LEARNING) and defense != "adversarial-training" and name not in FEW:
            continue
        task = guarded(name, defense)
        if task is not None:
            played += 1
            agent = {"field": "square", "edits": "greedy"}[task.samples("test", [0]).kind]
            if found := play_both(task, AGENTS[agent], [0, 1]):
                wrong[name] = found
    assert played and not wrong, wrong


@pytest.mark.parametrize(("name", "agent"), [("image/digits-linf", "pgd"), ("text/synth-wordswap", "greedy")])
def test_a_detector_of_the_cpu(name, agent):
    """A risk that does not lie where the scores lie is moved there."""
    task = made(name, 6)

    def risk(x):
        return torch.full((len(x),), 0.25)

    watched = task.victim.like(task.victim.model, risk=risk, threshold=0.5)
    task = defend(task, [(lambda victim, task: watched, {})])
    assert task.victim.risk is risk and play_both(task, AGENTS[agent], [0, 1]) == []


@pytest.mark.parametrize("keyed", [False, True])
def test_a_callable_that_computes_on_the_cpu(keyed):
    task = made("image/digits-linf", 6, knowledge="score")
    module = task.victim.module

    def model(x, keys=None):
        assert (keys is None) is not keyed
        return module(x.cpu()).detach().numpy()

    task = defend(task, [(lambda victim, task: Victim(model, keyed=keyed), {})])
    assert play_both(task, AGENTS["square"], [0, 1]) == []


def test_a_callable_of_texts_that_gives_lists():
    def model(texts):
        return [[float(len(words) % 3), 1.0] for words in texts]

    task = made("text/synth-wordswap", 6, knowledge="score", victim=Victim(model))
    assert play_both(task, AGENTS["greedy"], [0, 1]) == []
