"""A genetic attack on either kind of perturbation (after Alzantot et al. 2018, 2019)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.common import best_of, choose, clean_fitness, fitness, wide
from advgym.agents.shared.once import once
from advgym.lib.settings import POSITIVE, SHARE

POPULATION = 16


@register_agent(
    "genetic",
    kind=("field", "edits"),
    knowledge="score",
    proposals=POPULATION,
    allowed={"mutation": SHARE, "temperature": POSITIVE},
)
def attack(env, *, mutation=0.1, temperature=0.3, seed=0):
    """Softmax selection, uniform crossover, mutation and elitism; the population goes through in one forward."""
    obs, _ = env.reset(seed=seed)
    draws, lanes = env.draws(seed), torch.arange(len(env.threat.reach), device=env.threat.reach.device)
    best, held = clean_fitness(obs), env.threat.null()
    population = env.threat.random(seed, POPULATION)
    asked = once(env)
    while not asked.done:
        obs, *_ = asked.step(population)
        value = fitness(obs)
        top, winner = best_of(value, population)
        better = top > best
        best, held = torch.where(better, top, best), choose(better, winner, held)
        if not bool(obs["evaluated"].any()):
            break
        spread = torch.where(
            value.isfinite(), value, value.masked_fill(~value.isfinite(), 1e9).amin(1, keepdim=True) - 1
        )
        weight = torch.softmax((spread - spread.amax(1, keepdim=True)) / temperature, 1)
        mother, father = (_pick(weight, draws.uniform(POPULATION)) for _ in range(2))
        a, b = population[lanes.unsqueeze(1), mother], population[lanes.unsqueeze(1), father]
        breed = _breed_field if env.kind == "field" else _breed_edits
        population = breed(env, draws, a, b, mutation)
        population[:, 0] = held  # the elite; where nothing was found yet it is the clean sample, and free
    return held


def _pick(weight: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    return torch.searchsorted(weight.cumsum(1), u).clamp_max(weight.shape[1] - 1)


def _breed_field(env, draws, a, b, mutation):
    """Uniform crossover; a mutated share of entries goes to the surface of the ball."""
    shape = env.shape
    child = torch.where(draws.uniform(POPULATION, *shape) < 0.5, a, b)
    u = draws.uniform(POPULATION, *shape)
    surface = torch.sign(u - mutation / 2) * wide(env.threat.reach.unsqueeze(1), child)
    return env.threat.project(torch.where(u < mutation, surface, child))


def _breed_edits(env, draws, a, b, mutation):
    """Each edit from one of the parents, then one random edit more or other."""
    child = torch.where((draws.uniform(POPULATION, a.shape[2]) < 0.5).unsqueeze(3), a, b)
    child = env.threat.project(child)
    edit = env.threat.sample_edit(draws.uniform(POPULATION, 2))
    full = (child[..., 0] >= 0).all(2, keepdim=True)
    drop = torch.zeros_like(child[..., 0], dtype=torch.bool)
    drop.scatter_(2, draws.integers(child.shape[2], POPULATION, 1), True)
    mutant = env.threat.compose(torch.where((drop & full).unsqueeze(3), -1, child), edit)
    apply = draws.uniform(POPULATION, 1, 1) < max(mutation, 0.5)
    return env.threat.project(torch.where(apply, mutant, child))
