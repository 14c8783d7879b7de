"""Steps of the digits task with a victim that costs nothing: what the gym itself takes per lane and step."""

from __future__ import annotations

import torch
from _common import arguments, clock, device_label, table
from torch import nn

import advgym


class Free(nn.Module):
    """Scores that touch the input once, so that gradients exist, and cost next to nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 8, 8) -> (n, 10)."""
        flat = x.flatten(1)
        return flat[:, :10] - flat[:, 10:20]


def main() -> None:
    args = arguments(__doc__, lanes="64,1024,4096", steps=50)
    rows = []
    for lanes in [int(v) for v in args.lanes.split(",")]:
        victim = advgym.Victim(Free(), name="free")
        options = {"victim": victim, "queries": 10**6, "gradients": 10**6, "least": True}
        task = advgym.make_task("image/digits-linf", **options)
        env = advgym.AttackEnv(task, lanes, device=args.device)
        env._clean.right[:] = True  # a free victim has few samples right; all are dealt
        env._clean.known[:] = True
        env._clean.scores = torch.rand(len(env._clean.known), 10, device=args.device)
        env.reset(seed=0)
        p = env.threat.random(0)

        def score(env=env, p=p):
            for _ in range(args.steps):
                env.step(p)

        def white(env=env, p=p):
            delta = p
            for _ in range(args.steps):
                obs, *_ = env.step(delta.detach().requires_grad_())
                delta = obs["perturbation"]
                obs["surrogate"].sum().backward()

        for name, loop in (("score", score), ("white-box, with backward", white)):
            loop()
            best = sorted(clock(loop, args.device) for _ in range(args.repeat))[args.repeat // 2]
            rows.append([lanes, name, best / args.steps * 1e3, best / args.steps / lanes * 1e6, args.steps * lanes / best])
    head = ["lanes", "knowledge", "ms per step", "us per lane and step", "lane steps per second"]
    table(f"image/digits-linf, a victim that costs nothing ({device_label(args.device)})", head, rows, args.json)


if __name__ == "__main__":
    main()
