"""Attacks of foolbox, torchattacks and adv-lib through our meter: what the library finds, at its own price."""

from functools import cache

import pytest
import torch
import toy

from advgym import AdvgymError, attack, make_task, verify
from advgym.lib.foreign import own_states

TASK = "image/digits-linf"
EXTERNAL = {  # a bridge, an attack of fixed size, settings, queries of a sample and gradients
    "foolbox:LinfPGD": ({"steps": 5}, 5),
    "torchattacks:PGD": ({"steps": 5, "alpha": 0.02}, 5),
    "adv-lib:pgd_linf": ({"steps": 5}, 5),
}
MODULE = {"foolbox": "foolbox", "torchattacks": "torchattacks", "adv-lib": "adv_lib.attacks"}


def needs(name):
    pytest.importorskip(MODULE[name.partition(":")[0]], reason=f"{name} is not installed")


@cache
def played(name, task=TASK, **options):
    settings = dict(EXTERNAL.get(name, ({},))[0])
    return attack(task, name, episodes=4, lanes=4, settings=settings, **options)


@pytest.mark.parametrize("name", EXTERNAL)
def test_a_bridge_keeps_the_rules(name):
    needs(name)
    result = played(name)
    assert result.agent == name and not [f for f in result.flags if "crash" in f]
    assert result.attacked and verify(result) == []
    for s in result.samples:
        assert s.valid and 0 < s.gradients <= s.queries <= EXTERNAL[name][1] + 3


@pytest.mark.parametrize("name", ["foolbox:LinfPGD", "torchattacks:PGD"])
def test_lanes_do_not_matter(name):
    needs(name)
    four, one = played(name).samples, attack(TASK, name, episodes=4, lanes=1, settings=EXTERNAL[name][0]).samples
    rows = [[(s.id, s.success, s.queries, s.perturbation) for s in sorted(r, key=lambda s: s.id)] for r in (four, one)]
    assert rows[0] == rows[1]


def test_foolbox_finds_what_it_finds_on_the_bare_model():
    needs("foolbox")
    import foolbox

    task = make_task("image/linf", victim="digits-cnn", dataset="digits", eps=0.1, lattice=0, least=True)
    result = attack(task, "foolbox:LinfBasicIterativeAttack", episodes=12, lanes=12, settings={"steps": 6})
    batch = task.samples("test", [s.id for s in result.samples])
    model = foolbox.PyTorchModel(task.victim.module.eval(), bounds=(0, 1))
    peer = foolbox.attacks.LinfBasicIterativeAttack(steps=6)
    found = peer.run(model, batch.x, foolbox.criteria.Misclassification(batch.labels), epsilon=0.1)
    wins = task.victim(found).argmax(1) != batch.labels
    assert wins.tolist() == [s.success for s in result.samples] and 0 < wins.sum() < 12


def test_minimal_attacks_are_held_to_the_ball_and_the_budget():
    needs("foolbox")
    result = attack("image/digits-l2", "foolbox:DDN", episodes=4, settings={"steps": 30}, queries=12, least=True)
    assert all(s.queries <= 12 for s in result.samples) and verify(result) == []
    free = attack("image/digits-l2", "foolbox:L2DeepFool", episodes=4, eps=4.0, least=True)
    assert free.success_rate == 1.0 and verify(free) == []


def test_labels_are_enough_for_attacks_on_labels():
    needs("foolbox")
    result = attack("image/digits-l2", "foolbox-labels:HopSkipJump", episodes=2, eps=6.0, queries=400, least=True,
                    settings={"steps": 1, "initial_gradient_eval_steps": 20})  # fmt: skip
    assert result.success_rate == 1.0 and verify(result) == []
    assert all(s.gradients == 0 for s in result.samples)


@pytest.mark.parametrize("name", ["foolbox:LinfPGD", "torchattacks:PGD", "adv-lib:fmn"])
def test_targets_are_aimed_at(name):
    needs(name)
    result = attack("image/digits-linf", name, episodes=4, goal="targeted", eps="12/16", lanes=4)
    assert any(s.success for s in result.samples) and verify(result) == []


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("foolbox:LinfPGB", {}, "LinfPGD"), ("foolbox:LinfPGD", {"step": 3}, "steps"),
        ("torchattacks:PDG", {}, "PGD"), ("torchattacks:PGD", {"step": 3}, "steps"),
        ("adv-lib:fnm", {}, "fmn"), ("adv-lib:fmn", {"step": 3}, "steps"),
    ],
)  # fmt: skip
def test_names_and_settings_are_explained(name, settings, words):
    needs(name)
    with pytest.raises(AdvgymError, match=words):
        attack(TASK, name, episodes=2, settings=settings)


def test_a_missing_library_says_how_it_is_installed():
    from advgym.lib.extras import need

    with pytest.raises(AdvgymError, match="a needs no_such_library, which does not import"):
        need("no_such_library", "a")


def test_an_exhausted_budget_hands_in_the_best_so_far():
    needs("foolbox")
    task = toy.task("field", queries=6, gradients=6, least=True, eps=1.0, lattice=None)
    result = attack(task, "foolbox:LinfPGD", episodes=12, settings={"steps": 50})
    assert all(s.queries <= 6 for s in result.samples) and result.success_rate > 0
    assert verify(result, task=task) == []


def test_the_callers_random_state_is_left_alone():
    needs("foolbox")
    with own_states(3):
        before = torch.get_rng_state()
        attack(TASK, "foolbox:LinfPGD", episodes=2, settings={"steps": 2})
        assert torch.equal(before, torch.get_rng_state())
