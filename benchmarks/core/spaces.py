"""Making the spaces of a 3x224x224 task at 256 lanes, against Gymnasium's own Box and batch_space."""

from __future__ import annotations

import time
import tracemalloc

import gymnasium as gym
import numpy as np
import torch
from torch import nn

import advgym
from benchmarks._common import arguments, table


class Model(nn.Module):
    """Any classifier of 3x224x224."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 224, 224) -> (n, 10)."""
        return x.mean((2, 3)).repeat(1, 4)[:, :10]


def measure(function) -> tuple[float, float]:
    """(milliseconds, peak MB) of one call."""
    function()
    started = time.perf_counter()
    kept = function()
    took = time.perf_counter() - started
    del kept
    tracemalloc.start()
    kept = function()  # held until the peak is read
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del kept
    return took * 1e3, peak / 2**20


def main() -> None:
    args = arguments(__doc__, lanes=256)
    g = torch.Generator().manual_seed(0)
    samples = [(torch.rand(3, 224, 224, generator=g), 0)]
    task = advgym.make_task("image/linf", victim=Model(), samples=samples)
    task.samples("test", [0])

    def ours():
        env = advgym.AttackEnv(task, args.lanes)
        return env.action_space, env.observation_space, env.single_action_space, env.single_observation_space

    def gymnasium():
        box = gym.spaces.Box(-1, 1, (3, 224, 224), np.float32)
        return gym.vector.utils.batch_space(box, args.lanes)

    rows = [["advgym, all four spaces", *measure(ours)], ["gymnasium, one batched Box", *measure(gymnasium)]]
    table(f"spaces of 3x224x224 at {args.lanes} lanes", ["spaces", "ms", "peak MB"], rows, args.json)


if __name__ == "__main__":
    main()
