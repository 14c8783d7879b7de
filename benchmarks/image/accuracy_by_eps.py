"""Top-1 and top-5 accuracy under FGSM, BIM, PGD, their targeted variants and CW, by eps: a table of a source paper.

    python -m benchmarks.image.accuracy_by_eps                                       # MNIST at .1, .2, .3
    python -m benchmarks.image.accuracy_by_eps --eps 2/255,4/255,8/255,16/255 --dataset FOLDER --victim NAME

Accuracy is over the samples assigned (top-1 of the label after the attack, top-5 likewise), the victim asked about the
final perturbation; targets are those that the task draws. CW is Foolbox's CW-L2 through our bridge,
clipped into the ball, and left out where foolbox or its bridge is missing.
"""

from __future__ import annotations

import torch

import advgym
from advgym.errors import AdvgymError
from benchmarks._common import arguments, table

ROWS = [
    ("clean", "", {}, "untargeted"),
    ("FGSM", "fgsm", {}, "untargeted"),
    ("BIM", "bim", {}, "untargeted"),
    ("PGD", "pgd", {}, "untargeted"),
    ("FGSM targeted", "fgsm", {}, "targeted"),
    ("BIM targeted", "bim", {}, "targeted"),
    ("PGD targeted", "pgd", {}, "targeted"),
    ("CW", "foolbox:L2CarliniWagner", {"binary_search_steps": 5, "steps": 60, "stepsize": 0.05}, "untargeted"),
]


def top(task, result: advgym.Result, k: int) -> float:
    """Share of the assigned samples whose label is among the k best scores after the attack."""
    rows = sorted(result.samples, key=lambda s: s.id)
    batch = task.samples("test", [s.id for s in rows])
    delta = batch.load([s.perturbation for s in rows])
    with torch.no_grad():
        scores = task.victim(batch.inputs(batch.look(delta).form))
    hit = (scores.topk(k, dim=1).indices == batch.labels.unsqueeze(1)).any(1)
    return float(hit.sum()) / result.episodes


def main() -> None:
    args = arguments(__doc__, episodes=200, eps="26/255,51/255,76/255", dataset="mnist", victim="mnist-cnn", seed=0)
    rows: list[list[object]] = []
    marks = args.eps.split(",")
    for name, agent, settings, goal in ROWS:
        row: list[object] = [name]
        for eps in marks:
            about = {"victim": args.victim, "dataset": args.dataset, "eps": eps, "goal": goal, "queries": 400,
                     "gradients": 400}  # fmt: skip
            task = advgym.make_task("image/linf", **about)
            try:
                result = advgym.attack(task, agent or "noise", episodes=args.episodes, lanes=args.episodes,
                                       seed=args.seed, settings=settings, device=args.device)  # fmt: skip
            except AdvgymError as error:
                print(f"{name}: {error}")
                break
            if not agent:
                row.append(f"{result.attacked / result.episodes:.3f}")
                continue
            row.append(f"{top(task, result, 1):.3f} / {top(task, result, 5):.3f}")
        if len(row) == len(marks) + 1:
            rows.append(row)
    what = f"{args.victim} on {args.dataset}, {args.episodes} test images, top-1 / top-5 accuracy"
    table(what, ["attack", *(f"eps {e}" for e in marks)], rows, args.json)


if __name__ == "__main__":
    main()
