"""Adversarial training: it helps, it is cached, and it depends on no option of the attack it will meet."""

import pytest
import torch

from advgym import AdvgymError, Victim, attack, make_task, registry
from advgym.agents.defenses import loop
from advgym.lib.weights import weights_hash

SMALL = {"samples": 512, "epochs": 2, "queries": 10}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVGYM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def trained(name="image/digits-linf", settings=SMALL, **options):
    return make_task(name, defenses=[("adversarial-training", settings)], **options).victim


def test_it_improves_robust_accuracy():
    options = {"episodes": 60, "lanes": 60, "queries": 20, "settings": {"steps": 15, "step_size": 0.15}}
    plain = attack("image/digits-linf", "pgd", **options)
    guarded = attack("image/digits-linf", "pgd", defenses=[("adversarial-training", SMALL)], **options)
    assert guarded.robust_accuracy > plain.robust_accuracy + 0.1
    assert guarded.clean_accuracy > plain.clean_accuracy - 0.1
    assert guarded.victim["inner"] == "pgd"


def test_it_trains_once(monkeypatch):
    first = trained()
    calls = []
    monkeypatch.setattr(loop, "_course", lambda *a: calls.append(a) or {})
    again = trained()
    assert not calls and weights_hash(first.module) == weights_hash(again.module)
    trained(settings={**SMALL, "seed": 3})
    assert calls


@pytest.mark.parametrize(
    "options", [{"knowledge": "score"}, {"knowledge": "decision"}, {"queries": 33}, {"gradients": 7}, {"least": True},
                {"goal": "targeted"}, {"eps": "1/16"}, {"knowledge": "transfer"}],
)  # fmt: skip
def test_it_does_not_depend_on_the_attack_it_will_meet(options, monkeypatch):
    """The same defended victim at every eps, goal and budget, or robustness curves compare different models."""
    first = trained()
    calls = []
    monkeypatch.setattr(loop, "_course", lambda *a: calls.append(a) or {})
    assert weights_hash(trained(**options).module) == weights_hash(first.module) and not calls


def test_the_victim_itself_is_untouched():
    task = make_task("image/digits-linf")
    before = weights_hash(task.victim.module)
    trained()
    assert weights_hash(make_task("image/digits-linf").victim.module) == before
    assert not any(p.requires_grad for p in task.victim.module.parameters())
    guard = trained()
    assert not any(p.requires_grad for p in guard.module.parameters()) and not guard.module.training


def test_any_agent_may_be_the_inner_attack():
    for inner in ("noise", "fgsm"):
        victim = trained(settings={"samples": 64, "epochs": 1, "queries": 4, "agent": inner})
        assert victim.card["inner"] == inner
    edits = trained("image/digits-pixel", settings={"samples": 64, "epochs": 1, "queries": 20})
    assert edits.card["inner"] == "first-order"


def test_only_modules_can_be_trained():
    with pytest.raises(AdvgymError, match="no module"):
        registry.defense("adversarial-training").defend(Victim(lambda x: x), make_task("image/digits-linf"))


def test_random_state_is_untouched():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    trained(settings={"samples": 64, "epochs": 1, "queries": 4, "seed": 9})
    assert torch.equal(state, torch.get_rng_state())
