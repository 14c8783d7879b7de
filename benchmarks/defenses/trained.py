"""Victims trained again by the defenses of agents/defenses/training: accuracy, robustness and what training cost.

For each defense with its defaults on image/mnist-linf (76/255) and the victim mnist-strided: clean accuracy of the test
split, robust accuracy under `pgd` of 40 steps and under `auto` with what the task's budget gives it (2,000
propagations), of `--images` samples that are the same for all, and the CPU seconds of training (one thread; without the
clean victim's own, and as its card says where it was cached). Epochs were chosen by the time they take, not by
accuracy; the rest is the loop's defaults, or the paper's.

Command: ADVGYM_DATA=... python -m benchmarks.defenses.trained   (--images 1000 --defenses fast-training,trades --json)
"""

from __future__ import annotations

import torch

import advgym
from advgym.cli.values import read_defense
from benchmarks._common import arguments, device_label, table

AGENTS = (("pgd", {"queries": 40, "gradients": 40, "settings": {"steps": 40, "step_size": 1 / 30}}), ("auto", {}))


def main() -> None:
    args = arguments(
        __doc__, images=1000, defenses="adversarial-training;fast-training", task="image/mnist-linf",
        victim="mnist-strided",
    )  # fmt: skip
    torch.set_num_threads(1)
    lines = []
    for text in ("none", *args.defenses.split(";")):
        guards = [] if text == "none" else [read_defense(text)]
        card = advgym.make_task(args.task, victim=args.victim, defenses=guards).victim.card
        found = [
            advgym.attack(
                args.task,
                agent,
                victim=args.victim,
                episodes=args.images,
                lanes=min(args.images, 250),
                defenses=guards,
                device=args.device,
                **options,
            )
            for agent, options in AGENTS
        ]
        lines.append([text, found[0].clean_accuracy, *(r.robust_accuracy for r in found), card.get("cpu_seconds", 0.0),
                      str(card.get("overfitting", ""))])  # fmt: skip
    title = f"{args.task}, {args.victim}, {args.images} images ({device_label(args.device)})"
    table(title, ["defense", "clean", "pgd-40", "auto", "training CPU s", "overfitting"], lines, args.json)


if __name__ == "__main__":
    main()
