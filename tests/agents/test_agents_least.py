"""Carlini and Wagner's attacks and the elastic net: closed forms, foolbox's of the same name, one lane alone."""

import pytest
import torch
import toy

from advgym import attack, registry
from advgym.agents.shared.gradients.least import onto_plane, size
from advgym.core.env import AttackEnv
from advgym.judge.evaluator import evaluator

torch.set_num_threads(1)
WIDE = {"l1": 5.99, "l2": 2.4, "linf": 1 - 1e-6, "l0": 6}


def nearest(name, norm, ids, **settings):
    """(distance of each lane's held success, whether it has one) on the linear toy."""
    task = toy.task(
        norm=norm, eps=WIDE[norm], lattice=None, queries=3000, gradients=3000, knowledge="white-box", least=True
    )
    env = AttackEnv(task, assigned=ids)
    env.reset(seed=0)
    registry.agent(name).attack(env, seed=0, **settings)
    book, batch = evaluator(env).book, evaluator(env).batch
    return batch.look(book.held).distance, book.success


@pytest.mark.parametrize(("name", "norm", "slack"), [("cw", "l2", 0.01), ("cw", "linf", 0.01), ("ead", "l1", 0.03)])
def test_on_a_linear_model_within_a_box_a_least_change_is_found(name, norm, slack):
    """Onto one of the planes between classes, most often the nearest."""
    ids = [i for i in range(16) if i % 10]
    x, layer = toy.samples()[ids], toy.linear()
    z = layer(x)
    own, rows = z.argmax(1), torch.arange(len(ids))
    exact = torch.full((len(ids), toy.CLASSES), torch.inf)
    for k in range(toy.CLASSES):
        w, gap = layer.weight[k] - layer.weight[own], z[rows, own] - z[:, k]
        v = onto_plane(norm, w, gap, -x, 1 - x)
        reached = ((w * v).sum(1) >= gap - 1e-5) & (own != k)
        exact[:, k] = torch.where(reached, size(norm, v), torch.inf)
    far, won = nearest(name, norm, ids, steps=80)
    assert bool(won.all())
    over = far.unsqueeze(1) - exact
    assert bool((over.amax(1) >= -1e-4).all())
    off = over.abs().amin(1) / far
    assert float(off.median()) < slack and float(off.max()) < 5 * slack
    assert float((over.amax(1) / far).median()) < 0.1


@pytest.mark.parametrize(("name", "norm"), [("cw", "l2"), ("cw", "linf"), ("cw", "l0"), ("ead", "l1")])
def test_a_lane_does_not_depend_on_the_others(name, norm):
    settings = {"steps": 15}
    far, won = nearest(name, norm, [1, 2, 5], **settings)
    alone = [nearest(name, norm, [i], **settings) for i in (2,)]
    assert [float(d) for d, _ in alone] == pytest.approx(far[[1]].tolist(), abs=1e-4)
    assert [bool(w) for _, w in alone] == won[[1]].tolist()


@pytest.mark.parametrize(
    ("ours", "norm", "eps", "peer"),
    [
        ("cw", "l2", 7.9, "foolbox:L2CarliniWagnerAttack"),
        ("ead", "l1", 63.9, "foolbox:EADAttack"),
    ],
)
def test_no_further_than_foolbox(ours, norm, eps, peer):
    """At 200 queries and gradients each."""
    pytest.importorskip("foolbox")
    given = {"episodes": 8, "lanes": 8, "queries": 200, "gradients": 200, "least": True, "lattice": 0, "eps": eps}
    a = attack(f"image/digits-{norm}", ours, settings={"steps": 40}, **given)
    b = attack(f"image/digits-{norm}", peer, settings={"steps": 22, "binary_search_steps": 9}, **given)
    assert a.success_rate == 1 >= b.success_rate
    assert b.success_rate < 1 or a.distance_median <= b.distance_median
