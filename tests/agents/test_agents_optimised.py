"""Optimisers inside an attack: FTRL against its paper's rule, and each of them against a linear victim."""

import pytest
import torch
import toy

from advgym import attack, verify
from advgym.agents.gradient.optimised import OPTIMISERS, Ftrl


def test_ftrl_is_algorithm_1_of_its_paper():
    g = torch.Generator().manual_seed(0)
    grads = torch.randn(12, 5, generator=g)
    w = torch.zeros(5, requires_grad=True)
    inner = Ftrl([w], lr=0.3, beta=0.7, l1=0.4, l2=0.2)
    z, n, x = [0.0] * 5, [0.0] * 5, [0.0] * 5
    for grad in grads:
        w.grad = grad.clone()
        inner.step()
        for i, gi in enumerate(grad.tolist()):
            sigma = ((n[i] + gi * gi) ** 0.5 - n[i] ** 0.5) / 0.3
            z[i] += gi - sigma * x[i]
            n[i] += gi * gi
            sign = (z[i] > 0) - (z[i] < 0)
            x[i] = 0.0 if abs(z[i]) <= 0.4 else -(z[i] - sign * 0.4) / ((0.7 + n[i] ** 0.5) / 0.3 + 0.2)
        assert torch.allclose(w, torch.tensor(x), atol=1e-5)
    assert (w == 0).any() or w.abs().min() > 0


def test_ftrl_goes_on_from_where_it_starts():
    w = torch.tensor([0.5, -0.2], requires_grad=True)
    w.grad = torch.zeros(2)
    Ftrl([w], lr=0.1).step()
    assert torch.allclose(w, torch.tensor([0.5, -0.2]), atol=1e-6)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_each_optimiser_climbs(name):
    task = toy.task("field", lattice=None, queries=40, gradients=40)
    result = attack(task, "optimised", episodes=40, lanes=40, settings={"optimizer": name, "steps": 30, "rate": 0.3})
    pgd = attack(task, "pgd", episodes=40, lanes=40)
    assert result.success_rate >= 0.9 * pgd.success_rate > 0 and verify(result, task=task) == []
