"""Victims trained again by the defenses of agents/defenses/training: accuracy, robustness and what training cost.

For each defense with its defaults on image/mnist-linf (76/255) and the victim mnist-strided: clean accuracy on the test
split, robust accuracy under `pgd` of 40 steps and under `auto`, on the first `--images` of the evaluation's samples (the
same for all), and the CPU seconds of its training, the victim's own training aside (cached: what its card says). Rates
and sizes (`agents/defenses/training/rows.toml`) were tuned on held-out training images.

Command: ADVGYM_DATA=... python -m benchmarks.defenses.trained   (--images 1000 --defenses fast-training,trades --json)
"""

from __future__ import annotations

import advgym
from advgym.core.task import load_victim
from benchmarks._common import arguments, device_label, table


def main() -> None:
    args = arguments(
        __doc__, images=1000, defenses="adversarial-training,fast-training", task="image/mnist-linf",
        victim="mnist-strided", budget="thorough", settings="",
    )  # fmt: skip
    given = {k: advgym_number(v) for k, _, v in (pair.partition("=") for pair in args.settings.split(",") if pair)}
    lines = []
    for name in ("none", *args.defenses.split(",")):
        guards = [] if name == "none" else [(name, given)]
        victim = advgym.make_task(args.task, victim=args.victim, defenses=guards).victim
        rows = [played(args, guards, *row) for row in (("pgd", 40, {"steps": 40, "step_size": 1 / 30}),
                                                       ("auto", 8000, {"budget": args.budget}))]  # fmt: skip
        card = victim.card
        lines.append([name, rows[0][0], rows[0][1], rows[1][1], card.get("cpu_seconds", 0.0),
                      str(card.get("overfitting", ""))])  # fmt: skip
    title = f"{args.task}, {args.victim}, {args.images} images ({device_label(args.device)})"
    table(title, ["defense", "clean", "pgd-40", "auto", "training CPU s", "overfitting"], lines, args.json)
    load_victim(args.victim)


def played(args, guards: list, agent: str, queries: int, settings: dict) -> tuple[float, float]:
    """(clean accuracy on the whole split, robust accuracy: of all samples, those that are right after the attack)."""
    result = advgym.attack(
        args.task, agent, victim=args.victim, episodes=args.images, lanes=min(args.images, 250), defenses=guards,
        queries=queries, gradients=queries, settings=settings, device=args.device,
    )  # fmt: skip
    return result.clean_accuracy, result.robust_accuracy


def advgym_number(text: str) -> object:
    """A setting from the command line."""
    try:
        return int(text)
    except ValueError:
        return float(text) if text.replace(".", "", 1).replace("e-", "", 1).isdigit() else text


if __name__ == "__main__":
    main()
