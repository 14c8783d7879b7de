"""Randomised smoothing: keyed draws, votes that sum, a majority verdict."""

import math

import pytest
import torch
import toy

from advgym import Victim, attack, make, make_task, registry, verify

DRAWS = 16


def smoothed(victim=None, draws=DRAWS, **options):
    task = toy.task(lattice=None)
    return registry.defense("smoothing").defend(victim or Victim(toy.linear()), task, draws=draws, **options)


def shares(scores, draws=DRAWS, classes=toy.CLASSES):
    """The votes behind the log shares."""
    return scores.exp() * (draws + 0.5 * classes) - 0.5


def test_it_is_deterministic_per_key_and_knows_no_neighbours():
    guard, x = smoothed(), toy.samples()
    keys = torch.arange(100, 100 + len(x))
    whole = guard(x, keys)
    assert torch.equal(whole, guard(x, keys))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(guard(x[order], keys[order]), whole[order], atol=1e-6)
    for i in (0, 7):
        assert torch.allclose(guard(x[i : i + 1], keys[i : i + 1])[0], whole[i], atol=1e-6)
    assert not torch.equal(whole, guard(x, keys + 1))


def test_votes_sum_to_the_draws():
    votes = shares(smoothed()(toy.samples(), torch.arange(toy.SAMPLES)))
    assert torch.allclose(votes, votes.round(), atol=1e-3) and torch.allclose(votes.sum(1), torch.tensor(float(DRAWS)))
    assert (votes > -1e-3).all()


def test_votes_are_those_of_single_draws():
    """Each vote is the plain victim's answer to one noisy copy."""
    seen = []
    layer = toy.linear()

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(layer(x).argmax(1))
            return layer(x)

    guard = smoothed(Victim(Spy()))
    votes = shares(guard(toy.samples(), torch.arange(toy.SAMPLES)))
    assert len(seen) == DRAWS
    count = torch.nn.functional.one_hot(torch.stack(seen), toy.CLASSES).sum(0)
    assert torch.allclose(votes, count.float(), atol=1e-3)


def test_the_noise_has_the_size_it_says():
    seen = []

    def spy(x):
        seen.append(x)
        return torch.zeros(len(x), 3)

    x = torch.full((400, toy.SIZE), 0.5)
    smoothed(Victim(spy), noise=0.5)(x, torch.arange(400))
    noise = torch.stack(seen) - 0.5
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 * 0.25 / math.sqrt(n) and abs(float(noise.std()) - 0.25) < 0.01
    assert not torch.equal(noise[0], noise[1])


def test_the_gradient_is_the_mean_over_draws():
    guard = smoothed(draws=4)
    x = toy.samples()[:3].clone().requires_grad_()
    keys = torch.arange(3)
    (g,) = torch.autograd.grad(guard(x, keys)[:, 0].sum(), x)
    parts, layer = [], toy.linear()
    from advgym.core.rng import mix, normal

    for draw in range(4):
        y = (x.detach() + 0.5 * normal(0, mix(keys * 2**8 + draw), (toy.SIZE,))).requires_grad_()
        (part,) = torch.autograd.grad(torch.log_softmax(layer(y), 1)[:, 0].sum(), y)
        parts.append(part)
    assert torch.allclose(g, torch.stack(parts).mean(0), atol=1e-5)


def test_every_query_is_a_fresh_draw():
    loud = [("smoothing", {"noise": 4.0})]
    env = make(make_task("image/digits-linf", defenses=loud, knowledge="score"), 4)
    env.reset(seed=0)
    p = env.threat.random(0)
    seen = [env.step(p)[0]["scores"] for _ in range(3)]
    assert not torch.equal(seen[0], seen[1])
    again = make(make_task("image/digits-linf", defenses=loud, knowledge="score"), 4)
    again.reset(seed=0)
    assert torch.equal(again.step(p)[0]["scores"], seen[0])


def test_lanes_do_not_matter():
    task = make_task("image/digits-linf", defenses=["smoothing"], knowledge="score", queries=12)
    one, four = ({s.id: s for s in attack(task, "square", episodes=4, lanes=n).samples} for n in (1, 4))
    for i in one:
        assert one[i].perturbation == four[i].perturbation and one[i].success == four[i].success


def test_the_verdict_is_the_verifiers():
    result = attack("image/digits-linf", "random-search", episodes=8, lanes=8, queries=40, defenses=["smoothing"])
    assert verify(result) == [] and any("majority" in f for f in result.flags)
    assert verify(result) == [], "and the same each time"


@pytest.mark.parametrize("task", ["text/synth-wordswap", "graph/karate-edge", "image/digits-pixel"])
def test_edits_are_varied_by_the_tasks_own_hand(task):
    made = make_task(task, defenses=[("smoothing", {"draws": 3})], knowledge="score")
    env = make(made, 3)
    obs, _ = env.reset(seed=0)
    assert obs["scores"].isfinite().all()
    first = env.step(env.threat.random(1))[0]["scores"]
    assert first.isfinite().all()


def test_a_task_without_variations_cannot_be_smoothed():
    from advgym import AdvgymError

    with pytest.raises(AdvgymError, match="random variation"):
        registry.defense("smoothing").defend(Victim(toy.linear()), toy.task("edits"))
