"""A learned policy: PPO over single edits, trained on one task's training split and carried over to unseen samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from advgym import make, register_agent
from advgym.agents.shared.common import choose, clean_fitness, fitness
from advgym.agents.shared.once import once
from advgym.agents.shared.played import content_of
from advgym.agents.shared.policy_net import CellPolicy, State, ppo, sample
from advgym.errors import DataError
from advgym.lib.weights import load_or_train, load_weights

SHIPPED = Path(__file__).parents[1] / "weights"
TASK = "text/synth-wordswap"


@register_agent("policy", kind="edits", knowledge="score", needs=("text",))
def attack(env, *, weights="", seed=0):
    """A learned policy (PPO) makes one edit a step on top of the last, by public features and the victim's answers.

    Args:
        env: Edits. What it has learned is about words: changes of class log-odds and of frequency.
        weights: a safetensors file from `advgym train policy --task TASK`, or the name of a task whose policy ships
            (`text/mr-wordswap`); "" for that of `text/synth-wordswap`, trained with ten queries.
        seed: of its draws.
    """
    return play(env, read(weights or TASK), seed)


def play(env, policy: CellPolicy, seed: int) -> torch.Tensor:
    """One episode of every lane by this policy: the best set it came by (lanes, E, 2)."""
    obs, _ = env.reset(seed=seed)
    env = once(env)
    policy = policy.to(obs["objective"].device)
    draws, best, held = env.draws(seed), clean_fitness(obs), env.threat.null()
    state = State(env, draws, obs)
    while not env.done:
        with torch.no_grad():
            features, legal = state.see()
            logits = policy(features, state.slots.some)[0].masked_fill(~legal, -torch.inf)
        able = legal.any(1) & env.live
        if not bool(able.any()):
            break
        p = torch.where(able.view(-1, 1, 1), state.move(sample(logits, draws)), -1)
        obs, *_ = env.step(p)
        state.hear(obs)
        now = fitness(obs)
        better = now > best
        best, held = torch.where(better, now, best), choose(better, p, held)
    return held


def train(
    task: str = TASK, *, steps: int = 200_000, lanes: int = 64, queries: int = 10, lr: float = 2e-3, seed: int = 0,
    **options: Any,
) -> tuple[CellPolicy, dict[str, Any]]:  # fmt: skip
    """A policy for a task, and its card: shipped, from the cache, or trained now on the task's training split.

    What is kept is of the samples, the tables and the victim that it was trained on, whatever the task is called.

    Args:
        task: of Edits, with score knowledge.
        steps: lane-steps of training.
        lanes: at once.
        queries: of an episode.
        lr: learning rate, falling to a twentieth.
        seed: of everything.
        options: of the task, as `advgym.make` takes them: victim, samples or dataset with `train`, the threat model.
    """
    recipe = {"task": task, "steps": steps, "lanes": lanes, "queries": queries, "lr": lr, "seed": seed,
              **content_of(task, options, ("knowledge", "gradients"))}  # fmt: skip

    def learn(policy: torch.nn.Module) -> dict[str, Any]:
        totals: list[float] = []
        assert isinstance(policy, CellPolicy)
        ppo(
            policy, lambda: make(task, lanes, split="train", knowledge="score", queries=queries, **options),
            steps=steps, lanes=lanes, queries=queries, lr=lr, seed=seed, tell=lambda _, mean: totals.append(mean),
        )  # fmt: skip
        return {"first_return": sum(totals[:10]) / len(totals[:10]), "return": sum(totals[-10:]) / len(totals[-10:])}

    name = f"policy-{task.replace('/', '-')}"
    policy, card = load_or_train(name, CellPolicy, learn, recipe=recipe, shipped=SHIPPED / f"{name}.safetensors")
    assert isinstance(policy, CellPolicy)
    return policy, card


def read(path: str | Path) -> CellPolicy:
    """A policy from its file, or the one that ships for a task."""
    shipped = SHIPPED / f"policy-{str(path).replace('/', '-')}.safetensors"
    path = shipped if shipped.is_file() else path
    if not Path(path).is_file():
        raise DataError(f"no weights at {path}: `advgym train policy --task TASK` makes them and says where they lie")
    policy = CellPolicy()
    load_weights(Path(path), policy)
    return policy.eval().requires_grad_(False)
