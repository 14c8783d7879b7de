"""`auto` against the original AutoAttack on MNIST: samples left robust, and propagations of each sample.

    python -m benchmarks.image.auto_against_autoattack --folder PATH_TO_A_CHECKOUT_OF_fra31/auto-attack

Victims: `mnist-cnn`, undefended; a small net trained on PGD's images; `sure`, the same one with scores 300 times as
large. Same samples, Linf .3, plain floats. A
forward and a backward of one sample are a propagation each. Without the folder only our side runs. What each member of
the suite breaks, and for how many propagations, is printed beside it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

import advgym
from advgym.agents.gradient import auto
from advgym.core.env import AttackEnv
from advgym.judge.evaluator import evaluator
from benchmarks._common import arguments, table
from benchmarks.image._victims import robust, sure

EPS = 0.3


def main() -> None:
    args = arguments(__doc__, folder="", samples=200, first=0, budget="standard", seed=0, victims="cnn,robust")
    rows = []
    for name in args.victims.split(","):
        given = {"cnn": lambda: "mnist-cnn", "robust": robust, "sure": sure}[name]()
        task = advgym.make_task(
            "image/mnist-linf", victim=given, eps=EPS, lattice=0, queries=1_000_000, gradients=1_000_000
        )
        ids = list(range(args.first, args.first + args.samples))
        left, spent, seconds, yields = ours(task, ids, args)
        rows.append([name, "auto", args.samples, int(left.sum()), *spent, sum(spent), seconds])
        if args.folder:
            kept, peer, took = theirs(task, ids, args)
            rows.append([name, "AutoAttack", args.samples, int(kept.sum()), *peer, sum(peer), took])
            alone = int((kept & ~left).sum()), int((left & ~kept).sum())
            print(
                f"{name}: auto {sum(spent) / sum(peer):.4f} of AutoAttack's propagations; {alone[0]} broken by it alone"
            )
            print(f"{name}: {alone[1]} broken by AutoAttack alone")
        table(f"{name}: members of the suite", ["agent", "broken", "propagations", "per 1,000"], yields, args.json)
    if not args.folder:
        print("AutoAttack is not on the package index: give a checkout of github.com/fra31/auto-attack as --folder")
    head = ["victim", "attack", "samples", "robust", "forwards", "backwards", "propagations", "CPU s"]
    table(f"Linf {EPS}, MNIST test images from {args.first}, each row per sample", head, rows, args.json)


def ours(task: Any, ids: list[int], args: Any) -> tuple[Tensor, tuple[float, float], float, list[list[Any]]]:
    """(who is robust, forwards and backwards of a sample, CPU seconds, what each member broke)."""
    env = AttackEnv(task, assigned=ids)
    env.reset(seed=args.seed)
    book = evaluator(env).book
    yields: list[list[Any]] = []
    plays = auto.play

    def watched(game, member, *rest, **kw):
        def now():
            spent = book.used + task.threat.gradients - book.gradients_left
            return int(book.success.sum()), float(spent.sum())

        broken, before = now()
        plays(game, member, *rest, **kw)
        after, total = now()
        cost = total - before
        yields.append([member["agent"], after - broken, cost / len(ids), 1000 * (after - broken) / max(cost, 1)])

    auto.play = watched  # type: ignore[assignment]
    started = time.process_time()
    try:
        auto.attack(env, budget=args.budget, seed=args.seed)
    finally:
        auto.play = plays
    seconds = time.process_time() - started
    attacked = book.reason != 4
    spent = (book.used.sum() / len(ids), (task.threat.gradients - book.gradients_left).sum() / len(ids))
    return attacked & ~book.success, (float(spent[0]), float(spent[1])), seconds, yields


class Counted(nn.Module):
    """A model that counts the rows of its forwards and backwards."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        scores = self.model(x)
        if scores.requires_grad:
            scores.register_hook(self._back)
        return scores

    def _back(self, g: Tensor) -> None:
        self.backwards += len(g)


def theirs(task: Any, ids: list[int], args: Any) -> tuple[Tensor, tuple[float, float], float]:
    """The same of AutoAttack, version standard."""
    sys.path.insert(0, args.folder)
    from autoattack import AutoAttack

    batch = task.samples("test", ids)
    model = Counted(task.victim.model)
    started = time.process_time()
    attack = AutoAttack(model, norm="Linf", eps=EPS, device="cpu", seed=args.seed, verbose=False)
    found = attack.run_standard_evaluation(batch.x, batch.labels, bs=500)
    seconds = time.process_time() - started
    with torch.no_grad():
        kept = task.victim.model(found).argmax(1) == batch.labels
    return kept, (model.forwards / len(ids), model.backwards / len(ids)), seconds


if __name__ == "__main__":
    main()
