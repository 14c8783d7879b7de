"""Steps of the digits task with a victim that costs nothing: what the gym itself takes per lane and step."""

from __future__ import annotations

import torch
from torch import nn

import advgym
from benchmarks._common import arguments, clock, device_label, table


class Free(nn.Module):
    """Scores that touch the input once, so that gradients exist, and cost next to nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 8, 8) -> (n, 10)."""
        flat = x.flatten(1)
        return flat[:, :10] - flat[:, 10:20]


def main() -> None:
    args = arguments(__doc__, lanes="64,1024,4096", steps=50)
    victim = advgym.Victim(Free(), name="free")
    digits = advgym.make_task("image/digits-linf")
    x = digits.samples("train", list(range(digits.sizes["train"]))).x
    samples = list(zip(x, Free()(x).argmax(1).tolist(), strict=True))  # labelled so that the free victim is right
    rows = []
    for lanes in [int(v) for v in args.lanes.split(",")]:
        env = advgym.make(
            "image/linf", lanes, victim=victim, samples=samples, lattice=16, eps=2 / 16, queries=10**6, gradients=10**6,
            least=True, device=args.device,
        )  # fmt: skip
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
            step = best / args.steps
            rows.append([lanes, name, step * 1e3, step / lanes * 1e6, lanes / step])
    head = ["lanes", "knowledge", "ms per step", "us per lane and step", "lane steps per second"]
    table(f"the digits task, a victim that costs nothing ({device_label(args.device)})", head, rows, args.json)


if __name__ == "__main__":
    main()
