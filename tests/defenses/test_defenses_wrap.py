"""Defenses wrap a victim and are one: straight-through gradients, queries counted at the outermost, verdicts."""

import math

import pytest
import torch
import toy

from advgym import AdvgymError, Victim, attack, make, make_task, registry, verify
from advgym.agents.defenses.wrapping import before, straight_through
from advgym.core.task import defend

EMBEDDED = [
    "image/digits-linf",
    "image/digits-pixel",
    "text/synth-wordswap",
    "graph/karate-edge",
    "speech/synth-keyword",
    "speech/synth-transcribe",
]
# Bounds are of small nets: a spectrogram has none, nor a transformer; noise of images drowns a voice.
REFUSED = [("interval-bounds", "speech/synth-keyword")]
VICTIMS = {("word-bounds", "text/synth-wordswap"): {"victim": "synth-bag"}}
SETTINGS = {("gaussian-smoothing", "speech/synth-keyword"): {"sigma": 0.005}}
QUICK = {  # what trains something small of its own
    "mrr": {"samples": 600, "epochs": 2, "side": 4, "atoms": 24, "modules": 1},
    "purifier": {"samples": 400, "epochs": 6, "time": 0.1, "steps": 2},
    "rectifier": {"samples": 200, "epochs": 2, "blocks": 1, "eps": 0.1},
    "denoised-smoothing": {"samples": 200, "epochs": 3, "blocks": 1, "draws": 4, "sigma": 0.1},
}
TRANSCRIPTS = ("rover", "temporal-dependency")  # guard these alone; the others are played on words


def guards(entry, task):
    made = make_task(task)
    if (entry.name in TRANSCRIPTS) is not (task == "speech/synth-transcribe"):
        return False
    return (not entry.domains or made.domain in entry.domains) and made.samples("test", [0]).kind in entry.kinds


# What trains the victim again has a sweep of its own, test_defenses_trained.py.
# What screens training rows, or compares two channels: tests/core/test_core_poison.py, tests/fusion.
SCREENS = ("activation-clustering", "spectral-signatures", "consistency")
FREE = [n for n, e in registry.defenses().items() if ".defenses.training." not in e.origin and n not in SCREENS]
TABLE = [(d, t) for t in EMBEDDED for d in FREE if guards(registry.defense(d), t) and (d, t) not in REFUSED]


def options(defense, task):
    """The defense with its settings on a task, and its victim."""
    return {
        "defenses": [(defense, SETTINGS.get((defense, task), QUICK.get(defense, {})))],
        **VICTIMS.get((defense, task), {}),
    }


@pytest.mark.parametrize(("defense", "task"), REFUSED)
def test_what_a_defense_cannot_guard_is_said(defense, task):
    with pytest.raises(AdvgymError, match="cannot be had"):
        make_task(task, defenses=[defense])


def test_the_table_covers_every_defense_and_domain():
    assert {d for d, _ in TABLE} == set(FREE) and {t.split("/")[0] for _, t in TABLE} == {
        "image",
        "text",
        "graph",
        "speech",
    }


@pytest.mark.parametrize(("defense", "task"), TABLE)
def test_a_defended_task_is_attacked_and_verified(defense, task):
    result = attack(task, "random-search", episodes=6, lanes=6, queries=16, **options(defense, task))
    assert result.defense == defense and not any("crashed" in f for f in result.flags)
    assert 0.3 < result.clean_accuracy <= 1 and verify(result) == []
    assert all(s.queries <= 16 for s in result.samples)


@pytest.mark.parametrize(("defense", "task"), TABLE)
def test_a_defended_victim_keeps_its_gradients(defense, task):
    made = make_task(task, queries=10, **options(defense, task))
    env = make(made, 3)
    env.reset(seed=0)
    assert made.victim.access == "gradients" and made.defenses == (defense,)
    if env.kind == "field":
        p = env.threat.random(0).requires_grad_()
        obs, *_ = env.step(p)
        (g,) = torch.autograd.grad(obs["surrogate"].sum(), p)
        assert g.isfinite().all() and (g != 0).flatten(1).any(1).all()
    else:
        edits, gains = env.rank(k=3)
        assert (edits[:, 0] >= 0).all() and gains[:, 0].isfinite().all()


@pytest.mark.parametrize(("defense", "task"), TABLE)
def test_a_proposal_costs_one_query_however_deep_the_defense(defense, task):
    env = make(task, 3, 2, queries=10, knowledge="score", **options(defense, task))
    env.reset(seed=0)
    obs, *_ = env.step(env.threat.random(0, 2))
    assert torch.equal(10 - obs["queries_left"], obs["evaluated"].sum(1))


def test_the_attack_meets_the_defended_victim():
    """Queries go through the defense: what it does is what the attacker sees and the verdict is on."""
    calls = []

    def shift(victim, task):
        def model(x):
            calls.append(len(x))
            return victim(1 - x)

        return Victim(model, name="shifted")

    task = defend(toy.task(knowledge="score"), [shift])
    assert task.defenses == ("shift",)
    env = make(task, 4)
    env.reset(seed=0)
    calls.clear()
    p = env.threat.random(0)
    obs, *_ = env.step(p)
    assert calls == [4] and torch.allclose(obs["scores"], toy.linear()(1 - env.threat.apply(p)), atol=1e-6)


def test_the_surrogate_stays_undefended():
    task = make_task("image/digits-linf", knowledge="transfer", defenses=["bit-depth"])
    plain = make_task("image/digits-linf", knowledge="transfer")
    assert task.surrogate.name == plain.surrogate.name and "bit-depth" in task.victim.name


def test_defenses_stack_in_order():
    task = make_task("image/digits-linf", defenses=[("bit-depth", {"bits": 3}), ("smoothing", {"draws": 2})])
    assert task.defenses == ("bit-depth", "smoothing") and task.victim.keyed
    assert task.victim.name.index("bit-depth") < task.victim.name.index("smoothing")


def test_wrong_defenses_say_so():
    with pytest.raises(AdvgymError, match="image"):
        make_task("speech/synth-keyword", defenses=["bit-depth"])
    with pytest.raises(AdvgymError, match="did you mean 'bit-depth'"):
        make_task("image/digits-linf", defenses=["bitdepth"])
    for name, settings in (("bit-depth", {"bits": 0}), ("bit-depth", {"bits": 9}), ("smoothing", {"draws": 0})):
        with pytest.raises((ValueError, AdvgymError)):
            make_task("image/digits-linf", defenses=[(name, settings)])
    with pytest.raises((ValueError, AdvgymError)):
        make_task("speech/synth-keyword", defenses=[("mu-law", {"levels": 1})])


def test_a_defense_that_hides_the_scores_lowers_the_knowledge():
    def labels(victim, task):
        return Victim(lambda x: torch.nn.functional.one_hot(victim(x).argmax(1), 3), access="labels")

    with pytest.raises(AdvgymError, match="decision"):
        defend(toy.task(knowledge="score"), [labels])
    assert defend(toy.task(knowledge="decision"), [labels]).victim.access == "labels"


# -- straight-through ------------------------------------------------------------------------------------------------
def test_straight_through():
    x = torch.linspace(-1, 1, 9, requires_grad=True)
    y = straight_through((x * 3).round() / 3, x)
    assert torch.equal(y, (x * 3).round() / 3), "to the last bit"
    (g,) = torch.autograd.grad((y * torch.arange(9.0)).sum(), x)
    assert torch.equal(g, torch.arange(9.0))


def spy_victim():
    """Scores are the inputs, so that a transform in front of it can be read."""
    return Victim(lambda x: x, access="gradients", name="identity")


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_bit_depth(bits):
    guard = registry.defense("bit-depth").defend(spy_victim(), None, bits=bits)
    x = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = guard(x)
    level = y * (2**bits - 1)
    assert torch.allclose(level, level.round(), atol=1e-4) and (y - x).abs().max() <= 0.5 / (2**bits - 1) + 1e-6
    assert torch.allclose(guard(y.detach()), y, atol=1e-6), "rounding twice is rounding once"
    (g,) = torch.autograd.grad(y.sum(), x)
    assert (g == 1).all() and guard.access == "gradients"


@pytest.mark.parametrize("levels", [2, 64, 256])
def test_mu_law(levels):
    guard = registry.defense("mu-law").defend(spy_victim(), None, levels=levels)
    x = torch.linspace(-1, 1, 501).view(1, -1).requires_grad_()
    y = guard(x)
    assert len(y.detach().unique()) <= levels and y.abs().max() <= 1 + 1e-6
    # The curve by its definition: error is small near zero, where the levels are dense.
    compressed = x.sign() * torch.log1p(255 * x.abs()) / math.log(256)
    back = y.sign() * torch.log1p(255 * y.abs()) / math.log(256)
    assert (compressed - back).abs().max() <= 1 / (levels - 1) + 1e-5
    (g,) = torch.autograd.grad(y.sum(), x)
    assert (g == 1).all()


def test_before_keeps_what_the_victim_is():
    inner = Victim(lambda x, keys: x + keys.view(-1, 1), keyed=True, access="scores", chunk=3, risk=lambda x: x[:, 0],
                   threshold=0.25, card={"clean_accuracy": 0.9})  # fmt: skip
    guard = before(inner, lambda x: 2 * x, "double")
    assert (guard.keyed, guard.access, guard.chunk, guard.threshold, guard.card) == (
        True, "scores", 3, 0.25, {"clean_accuracy": 0.9})  # fmt: skip
    x, keys = torch.ones(5, 2), torch.arange(5)
    assert torch.equal(guard(x, keys), 2 * x + keys.view(-1, 1))
