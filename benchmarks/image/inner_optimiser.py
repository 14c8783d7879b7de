"""The inner optimiser of an attack against convergence: SGD, momentum, Adam, RMSProp, Adagrad, FTRL, as curves.

    python -m benchmarks.image.inner_optimiser --episodes 200 --steps 60

Each runs the same steps from the same start on the same samples and never stops at a success. Its learning rate is the
best of `--rates` on other images (the first ones; the curves are of those after them). Printed: share of samples broken
within so many steps, and the mean surrogate (cross-entropy) there.
"""

from __future__ import annotations

import torch

import advgym
from advgym import registry
from advgym.agents.gradient.optimised import OPTIMISERS
from benchmarks._common import arguments, table


def curve(task, ids: list[int], steps: int, seed: int, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    """(share broken, mean surrogate) after each step."""
    env = advgym.AttackEnv(task, assigned=ids)
    step, broken, losses, won = env.step, [], [], torch.zeros(len(ids), dtype=torch.bool)

    def spy(p):
        out = step(p)
        won.logical_or_(out[0]["success"] & out[0]["valid"])
        broken.append(won.float().mean())
        losses.append(out[0]["surrogate"].detach().mean())
        return out

    env.step = spy
    registry.agent("optimised").attack(env, seed=seed, steps=steps, **settings)
    return torch.stack(broken), torch.stack(losses)


def main() -> None:
    args = arguments(
        __doc__, episodes=100, steps=40, eps="26/255", dataset="mnist", victim="mnist-cnn", seed=0,
        rates="0.01,0.03,0.1,0.3,1.0", marks="1,2,5,10,20,40",
    )  # fmt: skip
    task = advgym.make_task("image/linf", victim=args.victim, dataset=args.dataset, eps=args.eps, least=True,
                            queries=args.steps + 2, gradients=args.steps + 2)  # fmt: skip
    batch = task.samples("test", list(range(3 * args.episodes)))
    right = batch.ids[task.victim(batch.x).argmax(1) == batch.labels].tolist()
    tuned, held = right[: args.episodes // 2], right[args.episodes // 2 :][: args.episodes]
    rates = [float(r) for r in args.rates.split(",")]
    marks = [int(m) for m in args.marks.split(",") if int(m) <= args.steps]
    rows: list[list[object]] = []
    for name in OPTIMISERS:
        of = {r: curve(task, tuned, args.steps, args.seed, optimizer=name, rate=r)[1].mean() for r in rates}
        rate = max(of, key=lambda r: float(of[r]))
        broken, losses = curve(task, held, args.steps, args.seed, optimizer=name, rate=rate)
        rows.append([name, rate, *(f"{float(broken[m]):.3f} {float(losses[m]):.2f}" for m in marks)])
    what = f"{args.victim} at eps {args.eps}, {len(held)} images, rates by {len(tuned)} others; broken, mean surrogate"
    table(what, ["optimiser", "rate", *(f"step {m}" for m in marks)], rows, args.json)


if __name__ == "__main__":
    main()
