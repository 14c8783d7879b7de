"""What a step costs beside the victim: ATen operations and waits for the device, and milliseconds at batch 1.

Counted as `counting` says, on a CPU, in steps in which no lane ends. Three counts of PGD: `env.step` alone; with the
agent's update of its proposal (the goal is on this one; the bare loop's is its update); and the whole turn of the loop,
with `env.done`, the loss and its backward to the model's scores. Of the searches a turn is what lies between two steps.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

import advgym
from advgym import registry
from benchmarks._common import arguments, device_label, race, table
from benchmarks.core.counting import Counting, Marked, count

LANES = 64
STEPS = 40  # of a search, at most
FIELD = {"eps": "1/16", "queries": 400}  # a ball so small that hardly a lane is over
GOALS = {"PGD": (40, 1)}
SEARCHES = (
    ("square", "image/digits-linf", {**FIELD, "knowledge": "score"}, None),
    ("greedy", "text/synth-wordswap", {"knowledge": "score"}, 4),
    ("greedy", "graph/sbm-edge", {"knowledge": "score"}, 4),
)


def main() -> None:
    args = arguments(__doc__, steps=40, lanes=LANES)
    rows = []
    for name, counts in (("PGD", pgd(args.lanes)), ("bare loop", bare(args.lanes))):
        rows.append([name, "image/digits-linf", *flat(counts), *GOALS.get(name, ("", ""))])
    for agent, task, settings, proposals in SEARCHES:
        counts = search(agent, task, settings, proposals, args.lanes)
        rows.append([agent, task, *flat(counts), "", ""])
    kinds = ("env.step", "with the update", "whole turn")
    head = ["loop", "task", *(f"{k}: {w}" for k in kinds for w in ("operations", "waits")), "goal", "goal, waits"]
    table(f"A step beside the victim, {args.lanes} lanes, no lane ends in it", head, rows, args.json)
    took = race(runners(args), args.repeat, args.device)
    over = (took["advgym"] - took["bare loop"]) / args.steps * 1e3
    head = ["runner", "ms a step", "over the bare loop", "goal"]
    rows = [["bare loop", took["bare loop"] / args.steps * 1e3, 0.0, ""]]
    rows.append(["advgym", took["advgym"] / args.steps * 1e3, over, 0.4])
    table(f"PGD on image/digits-linf, one lane ({device_label(args.device)})", head, rows, args.json)


def flat(counts: tuple[tuple[int, int] | None, ...]) -> list[Any]:
    """Counts as cells."""
    return [cell for pair in counts for cell in (pair or ("", ""))]


def pgd(lanes: int = LANES, steps: int = 4) -> tuple[tuple[int, int], ...]:
    """(`env.step`, with the update, whole turn) of the PGD agent's loop, each (operations, waits), once it is warm."""
    env = marked(advgym.make_task("image/digits-linf", **FIELD), lanes)
    env.reset(seed=0)
    state = SimpleNamespace(delta=env.threat.random(0), obs=None, g=None)
    alpha = 0.05 * env.threat.reach.view(-1, *[1] * len(env.shape))

    def step() -> None:
        state.obs, *_ = env.step(state.delta.requires_grad_())

    def grad() -> None:
        (state.g,) = torch.autograd.grad(state.obs["surrogate"].sum(), state.delta)

    def update() -> None:
        state.delta = env.threat.project(state.delta.detach() + alpha * env.threat.steepest(state.g))

    for _ in range(steps):
        done, stepped, graded, updated = count(lambda: env.done), count(step), count(grad), count(update)
        if bool(state.obs["success"].any()):
            raise RuntimeError("a lane was won: the count is of steps without a success")
    return stepped, both(stepped, updated), both(done, stepped, graded, updated)


def bare(lanes: int = LANES) -> tuple[tuple[int, int] | None, ...]:
    """The same of a loop that has only a model."""
    x, y, model, eps = plain(advgym.make_task("image/digits-linf", **FIELD), lanes)
    state = SimpleNamespace(delta=torch.zeros_like(x).requires_grad_(), g=None)

    def grad() -> None:
        state.g = gradient(Marked(model), x, y, state.delta)

    def update() -> None:
        state.delta = moved(x, state.delta, state.g, eps)

    graded, updated = count(grad), count(update)
    return None, updated, both(graded, updated)


def search(agent: str, task: str, settings: dict[str, Any], proposals: int | None, lanes: int) -> tuple[Any, ...]:
    """(`env.step`, None, between two steps' ends) of an agent's first steps in which no lane ends, medians."""
    env = marked(advgym.make_task(task, **settings), lanes, proposals)
    alone: list[tuple[int, int] | None] = []
    ends: list[tuple[int, int]] = []
    real = env.step
    with Counting() as counted:

        def step(actions: Any) -> Any:
            if len(ends) == STEPS:
                raise StopIteration
            before = counted.so_far
            out = real(actions)
            ends.append(counted.so_far)
            alone.append(None if out[4] else minus(ends[-1], before))  # the info says that a lane is over
            return out

        env.step = step
        with contextlib.suppress(StopIteration):
            registry.agent(agent).attack(env, seed=0)
    quiet = [(one, minus(ends[i], ends[i - 1])) for i, one in enumerate(alone) if i and one is not None]
    return middle([one for one, _ in quiet]), None, middle([turn for _, turn in quiet])


def marked(task: advgym.Task, lanes: int, proposals: int | None = None) -> advgym.AttackEnv:
    """An environment on the first lanes whose victim's own operations are not counted."""
    victim = task.victim.like(Marked(task.victim.model))
    return advgym.AttackEnv(replace(task, victim=victim), lanes, proposals)


def plain(task: advgym.Task, lanes: int) -> tuple[torch.Tensor, torch.Tensor, Callable[..., Any], float]:
    """Clean samples, the model's answers to them, the model, the radius."""
    batch, model = task.samples("test", list(range(lanes)), "cpu"), task.victim.model
    return batch.x, model(batch.x).argmax(1), model, float(batch.reach[0])


def gradient(model: Callable[..., Any], x: torch.Tensor, y: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Of the loss, in delta."""
    (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x + delta), y, reduction="sum"), delta)
    return g


def moved(x: torch.Tensor, delta: torch.Tensor, g: torch.Tensor, eps: float) -> torch.Tensor:
    """One step of PGD."""
    delta = (delta.detach() + 0.05 * eps * g.sign()).clamp_(-eps, eps)
    return (x + delta).clamp_(0, 1) - x


def runners(args: Any) -> dict[str, Callable[[], Any]]:
    """A bare loop and the PGD agent on one sample, that a success does not stop."""
    task = advgym.make_task("image/digits-linf", least=True)
    x, y, model, eps = plain(task, 1)
    pgd = registry.agent("pgd").attack

    def loop() -> None:
        delta = torch.zeros_like(x)
        for _ in range(args.steps):
            delta = moved(x, delta, gradient(model, x, y, delta.requires_grad_()), eps)

    def ours() -> None:
        pgd(advgym.AttackEnv(task, device=args.device, assigned=[0]), steps=args.steps, seed=0)

    return {"bare loop": loop, "advgym": ours}


def both(*counts: tuple[int, int]) -> tuple[int, int]:
    """Their sum."""
    return sum(c[0] for c in counts), sum(c[1] for c in counts)


def minus(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """Their difference."""
    return a[0] - b[0], a[1] - b[1]


def middle(counts: list[tuple[int, int]]) -> tuple[int, int] | None:
    """The median of each."""
    if not counts:
        return None
    return int(statistics.median(c[0] for c in counts)), int(statistics.median(c[1] for c in counts))


if __name__ == "__main__":
    main()
