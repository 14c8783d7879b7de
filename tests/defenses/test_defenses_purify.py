"""Networks in front of a victim that learn from clean images: what each does, and the gradient of either attacker."""

import pytest
import torch

from advgym import AdvgymError, attack, make, make_task, registry
from advgym.agents.defenses.inputs.purifier import mixed
from advgym.agents.defenses.training.feature_denoising import FILTERS, Block, blocked, denoised
from advgym.core.kinds.certificates import certifier

TASK = "image/digits-linf"
SMALL = {
    "rectifier": {"samples": 400, "epochs": 8, "width": 4, "blocks": 1, "eps": 0.12},
    "purifier": {"samples": 600, "epochs": 20, "width": 8, "time": 0.2, "steps": 2},
    "denoised-smoothing": {"samples": 400, "epochs": 8, "width": 8, "blocks": 1, "sigma": 0.2, "draws": 4},
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVGYM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def guarded(name, **settings):
    task = make_task(TASK)
    return task, registry.defense(name).defend(task.victim, task, **SMALL[name], **settings)


@pytest.mark.parametrize("name", SMALL)
def test_it_keeps_what_is_clean_and_both_attackers_see_the_same_answers(name):
    task, guard = guarded(name)
    naive = guarded(name, adaptive=False)[1]
    batch = task.samples("test", list(range(150)))
    keys = (torch.arange(150),) if guard.keyed else ()
    x = batch.x.clone().requires_grad_()
    told, same = guard(x, *keys), naive(x, *keys)
    assert (told.argmax(1) == batch.labels).float().mean() > 0.85 and torch.allclose(told, same, atol=1e-5)
    assert guard.keyed is naive.keyed is (name != "rectifier")
    bare = task.victim(x).log_softmax(1) if name == "denoised-smoothing" else task.victim(x)
    (g,), (plain,), (own,) = (torch.autograd.grad(t[:, 0].sum(), x) for t in (told, same, bare))
    assert g.isfinite().all() and (g != 0).flatten(1).any(1).all() and not torch.allclose(g, plain)
    assert torch.allclose(plain, own, atol=1e-4), "whoever does not reckon with it has the victim's gradient"


def test_a_rectifier_undoes_what_it_learnt_of():
    task, guard = guarded("rectifier")
    env = make(task, 40)
    env.reset(seed=0)
    found = registry.agent("fgsm").attack(env)
    moved = env.threat.apply(found)
    clean = task.victim(env.threat.apply(env.threat.null())).argmax(1)
    assert (guard(moved).argmax(1) == clean).sum() > (task.victim(moved).argmax(1) == clean).sum()


def test_a_diffusion_keeps_variance_and_draws_by_keys():
    x = torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for t in (0.0, 0.4, 0.9):
        assert float(mixed(x, noise, torch.full((2000,), t)).var()) == pytest.approx(1, abs=0.05)
    assert torch.equal(mixed(x, noise, torch.zeros(2000)), x)
    task, guard = guarded("purifier")
    x, keys = task.samples("test", [0, 1, 2]).x, torch.tensor([5, 9, 5])
    assert torch.allclose(guard(x, keys)[1:2], guard(x[1:2], keys[1:2]), atol=1e-5)
    assert not torch.allclose(guard(x, keys), guard(x, keys + 1), atol=1e-4)


def test_denoised_smoothing_is_certified():
    task, guard = guarded("denoised-smoothing")
    certify = certifier(guard)
    found = certify(task.samples("test", list(range(12))), draws=50)
    assert found.unit == "l2" and (found.radius >= 0).all() and (found.prediction >= 0).float().mean() > 0.5


@pytest.mark.parametrize("filter", FILTERS)
def test_a_block_begins_as_nothing_and_smooths(filter):
    x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Block(3, filter)(x), x)
    y = denoised(x, filter)
    assert y.shape == x.shape and y.var() < x.var()
    flat = torch.full((1, 2, 5, 5), 0.4)
    assert torch.allclose(denoised(flat, filter), flat, atol=1e-6)
    net = blocked(torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU()), filter)
    assert sum(isinstance(m, Block) for m in net.modules()) == 1 and list(net(x[:, :1]).shape) == [2, 3, 4, 4]


def test_feature_denoising_trains_and_is_attacked():
    settings = {"samples": 64, "epochs": 1, "queries": 2, "steps": 1}
    found = attack(TASK, "pgd", episodes=8, lanes=8, queries=4, gradients=4,
                   defenses=[("feature-denoising", settings)])  # fmt: skip
    assert found.clean_accuracy > 0.8
    with pytest.raises(AdvgymError, match="no convolutions"):
        make_task(TASK, victim="digits-mlp", defenses=[("feature-denoising", settings)])


@pytest.mark.parametrize("name", [*SMALL, "feature-denoising"])
def test_other_tasks_are_refused_by_name(name):
    with pytest.raises(AdvgymError, match="image"):
        make_task("speech/synth-keyword", defenses=[name])
