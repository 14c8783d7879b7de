"""Gradient attacks on Fields: against foolbox's of the same name, closed forms, and what `auto` promises."""

import pytest
import torch
import toy

from advgym import AdvgymError, attack, make, registry
from advgym.agents.gradient import auto
from advgym.agents.gradient.multi_targeted import plan
from advgym.agents.least.pdpgd import proximal
from advgym.agents.shared.gradients.ascent import factors, marks
from advgym.agents.shared.gradients.class_losses import Aim
from advgym.agents.shared.gradients.least import onto_ball, onto_plane, size
from advgym.agents.shared.purse import Purse
from advgym.core.env import AttackEnv
from advgym.judge.evaluator import evaluator

torch.set_num_threads(1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- closed forms --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_a_plane_is_met_at_the_dual_distance(norm):
    w, gap = normal(8, 20), normal(8, seed=1)
    far = torch.full((8, 20), 100.0)
    v = onto_plane(norm, w, gap, -far, far)
    assert torch.allclose((w * v).sum(1), gap, atol=1e-4)
    dual = {"l1": torch.inf, "l2": 2, "linf": 1}[norm]
    assert torch.allclose(size(norm, v), gap.abs() / torch.linalg.vector_norm(w, dual, dim=1), rtol=1e-4)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_a_plane_within_a_box_is_met_by_the_least_change(norm):
    w, low, high = normal(6, 5), -0.3 * torch.rand(6, 5), 0.3 * torch.rand(6, 5)
    gap = 0.6 * (torch.where(w > 0, high, low) * w).sum(1)
    v = onto_plane(norm, w, gap, low, high)
    assert bool(((v >= low - 1e-6) & (v <= high + 1e-6)).all())
    assert torch.allclose((w * v).sum(1), gap, atol=1e-5)
    g = torch.Generator().manual_seed(4)
    for _ in range(300):  # no other point of the plane and the box is nearer
        u = v + 0.05 * torch.randn(6, 5, generator=g)
        u = u - ((w * u).sum(1) - gap).unsqueeze(1) * w / w.square().sum(1, keepdim=True)
        inside = ((u >= low) & (u <= high)).all(1)
        assert bool((size(norm, u) >= size(norm, v) - 1e-5)[inside].all())


def test_a_plane_out_of_reach_gives_the_nearest_corner():
    w, room = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 0.5]])
    for norm in ("l1", "l2", "linf"):
        v = onto_plane(norm, w, torch.tensor([9.0]), -room, room)
        assert torch.allclose(v, torch.tensor([[0.5, -0.5]]))


@pytest.mark.parametrize("norm", ["l0", "l1", "l2", "linf"])
def test_a_proximal_point_is_a_minimum(norm):
    v, η = normal(5, 7), torch.rand(5, 1) + 0.1
    x = proximal(norm, v, η)

    def cost(y):
        return (y - v).square().sum(1) / 2 + η.squeeze(1) * size(norm, y)

    g = torch.Generator().manual_seed(2)
    for scale in (0.01, 0.1, 0.5):
        for _ in range(50):
            assert bool((cost(x + scale * torch.randn(5, 7, generator=g)) >= cost(x) - 1e-5).all())
    assert bool((cost(torch.zeros_like(v)) >= cost(x) - 1e-5).all())


@pytest.mark.parametrize("norm", ["l0", "l1", "l2", "linf"])
def test_a_lane_has_a_ball_of_its_own(norm):
    radius = torch.tensor([1.0, 2.0, 3.0])
    box = torch.full((3, 9), 5.0)
    assert bool((size(norm, onto_ball(norm, 3 * normal(3, 9), radius, -box, box)) <= radius * (1 + 1e-5)).all())


def test_checkpoints_are_those_of_the_paper():
    assert marks(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert float(factors("cosine", 10, torch.device("cpu"))[5]) == pytest.approx(0.5)
    assert plan(9, 297) == [(9, 11), (3, 33), (1, 99)] and plan(1, 5) == [(1, 5)]


def test_losses_by_hand():
    z = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    obs = {"scores": z, "output": torch.tensor([0]), "surrogate": torch.zeros(1), "objective": torch.zeros(1)}
    p = z.softmax(1)[0]
    wanted = {"ce": -p[0].log(), "margin": -1.0, "pm": p[1] - p[0], "dlr": -1.0 / 2.0}
    for name, value in wanted.items():
        assert float(Aim(obs, name)(obs)) == pytest.approx(float(value), rel=1e-5)
    aim = Aim(obs, "dlr")
    aim.towards = torch.tensor([2])
    assert float(aim(obs)) == pytest.approx(-2.0 / 2.5)
    assert aim.ranked(z).tolist() == [[1, 2, 3]]
    with pytest.raises(AdvgymError, match="reads classes"):
        Aim({**obs, "scores": torch.zeros(1, 2, 3), "output": torch.zeros(1, 2)}, "pm")


def test_a_very_sure_answer_leaves_a_slope():
    """Scores a thousand times as large: the softmax of them is 0 or 1 in float32."""
    z = 1000 * torch.tensor([[2.0, 1.0, 0.0]])
    obs = {"output": torch.tensor([0]), "surrogate": torch.zeros(1), "objective": torch.zeros(1)}
    for name in ("ce", "pm"):
        aim = Aim({**obs, "scores": z}, name)
        x = z.clone().requires_grad_()
        (g,) = torch.autograd.grad(aim({**obs, "scores": x}).sum(), x)
        assert float(g[0, 0]) < 0 < float(g[0, 1]), name


# -- beside foolbox ------------------------------------------------------------------------------------------
def least(name, norm, episodes=24, **settings):
    return attack(
        f"image/digits-{norm}", name, episodes=episodes, lanes=episodes, queries=1000, gradients=10_000,
        settings=settings, least=True, lattice=0, eps={"linf": "15/16", "l2": 7.9}[norm],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "norm", "peer", "settings"),
    [
        ("ddn", "l2", "foolbox:DDNAttack", {"steps": 60}),
        ("fmn", "l2", "foolbox:L2FMNAttack", {"steps": 60}),
        ("deepfool", "l2", "foolbox:L2DeepFoolAttack", {}),
        ("deepfool", "linf", "foolbox:LinfDeepFoolAttack", {}),
    ],
)
def test_no_further_than_foolbox(ours, norm, peer, settings):
    pytest.importorskip("foolbox")
    a, b = least(ours, norm, **settings), least(peer, norm, **settings)
    assert a.success_rate >= b.success_rate
    assert a.distance_median <= b.distance_median * 1.02


def test_apgd_breaks_what_pgd_breaks():
    """On eps where neither breaks all, at the same budget."""
    wins = {}
    for name, settings in (("pgd", {"steps": 30}), ("apgd", {"steps": 30})):
        result = attack("image/digits-linf", name, episodes=48, lanes=48, eps="1/16", settings=settings)
        wins[name] = result.success_rate
    assert wins["apgd"] >= wins["pgd"] > 0


# -- what is promised ----------------------------------------------------------------------------------------
def test_a_repeat_is_not_paid_for():
    """A ball of few lattice points: every point that is asked is a new one."""
    task = toy.task("field", eps=0.25, queries=60, gradients=60, knowledge="white-box")
    env = AttackEnv(task, assigned=list(range(12)))
    env.reset(seed=0)
    registry.agent("apgd").attack(env, steps=40, seed=0)
    book = evaluator(env).book
    live = ~book.success & (book.used > 4)
    assert bool(live.any())
    share = book.queries_distinct()[live].double() / book.used[live].double()
    pgd = AttackEnv(task, assigned=list(range(12)))
    pgd.reset(seed=0)
    registry.agent("pgd").attack(pgd, steps=40, seed=0)
    other = evaluator(pgd).book
    assert float(share.mean()) > float((other.queries_distinct()[live].double() / other.used[live].double()).mean())


def test_auto_spends_its_budget_and_no_more():
    for budget, most in (("quick", 200), ("standard", 1150)):
        task = toy.task("field", eps=0.05, lattice=None, queries=5000, gradients=5000, knowledge="white-box")
        env = AttackEnv(task, assigned=list(range(12)))
        env.reset(seed=0)
        auto.attack(env, budget=budget)
        book = evaluator(env).book
        spent = book.used + task.threat.gradients - book.gradients_left
        assert int(spent.max()) <= most
        assert int(spent[book.live].min()) > most / 2


def test_auto_breaks_at_least_what_its_first_member_breaks():
    one = attack("image/digits-linf", "apgd", episodes=32, lanes=32, eps="1/16", settings={"steps": 20})
    all_of = attack("image/digits-linf", "auto", episodes=32, lanes=32, eps="1/16")
    assert all_of.success_rate >= one.success_rate


def test_suites_say_what_is_wrong(tmp_path):
    path = tmp_path / "suites.toml"
    path.write_text('[budgets]\nquick = 1\n[[suites.x]]\nagent = "apgd"\nshare = 0.5\nprice = 2\nasks = "steps"\n')
    with pytest.raises(AdvgymError, match=r"add up to 0\.5"):
        auto.suites(path)
    for wrong in ({"budget": "huge"}, {"suite": "none"}):
        env = make(toy.task("field", knowledge="white-box"), 2)
        with pytest.raises(AdvgymError, match="Known"):
            auto.attack(env, **wrong)
    for members in auto.suites()["suites"].values():
        for member in members:
            registry.agent(member["agent"])


def test_a_purse_ends_a_member():
    env = make(toy.task("field", knowledge="white-box", queries=20, least=True), 3)
    env.reset(seed=0)
    purse = Purse(env.view(), 2)
    assert purse.asks_left.tolist() == [2, 2, 2]
    inner = purse.view(torch.tensor([0, 2]))
    inner.step(env.threat.random(0)[[0, 2]])
    inner.step(env.threat.random(1)[[0, 2]])
    assert inner.done and purse.done and not bool(purse.live.any()) and not env.done
