"""What a baseline earns in the Gymnasium environments: `reward_threshold` of a spec is the mean return, rounded down.

    python -m benchmarks.core.reward_thresholds [--episodes N] [--seed S]

The return of an episode is the sum of its rewards; it telescopes, so agents that propose whole perturbations and
policies that make one edit a step are on one scale. Nothing is tuned: agents, budgets and seeds are the defaults.
"""

import argparse
import sys
from typing import Any

import torch

from advgym import registry
from advgym.core.env import AttackEnv
from advgym.core.task import make_task

BASELINES = {  # task: the agent whose mean return is the threshold
    "image/digits-linf": "pgd", "text/synth-wordswap": "greedy", "text/synth-headline": "greedy",
    "graph/karate-edge": "greedy", "graph/sbm-edge": "first-order", "speech/synth-keyword": "pgd",
}  # fmt: skip


class Counted(AttackEnv):
    """Adds up the rewards of each lane, whichever view of it steps."""

    total: torch.Tensor

    def step(self, actions: Any) -> Any:
        out = super().step(actions)
        lanes = torch.arange(self.num_envs) if self._lanes is None else self._lanes
        self.total.index_add_(0, lanes, out[1].detach())
        return out


def returns(task: str, agent: str, episodes: int, seed: int) -> torch.Tensor:
    """The return of each episode: float32 (episodes,), fewer where the split has fewer samples that are attacked."""
    entry, made = registry.agent(agent), make_task(task)
    env = Counted(made, min(episodes, made.sizes["test"]), entry.proposals)
    env.total = torch.zeros(env.num_envs)
    entry.attack(env, seed=seed)
    return env.total


def main() -> int:
    """A row a task: agent, mean return with its standard error, threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{'task':<22} {'baseline':<12} {'episodes':>8} {'return':>7} {'error':>6} {'threshold':>9}")
    for task, agent in BASELINES.items():
        found = returns(task, agent, args.episodes, args.seed).double()
        mean, error = float(found.mean()), float(found.std() / len(found) ** 0.5)
        print(f"{task:<22} {agent:<12} {len(found):>8} {mean:>7.3f} {error:>6.3f} {int(mean * 100) / 100:>9}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
