"""Two channels with one label: what an attack on one of them does, whether they disagree, and what repairing leaves.

For each fusion and each attacked channel: the least radius of `--radii` (times the task's) at which `pgd` of `--steps`
steps, not knowing the detector, fools the victim on at least 90 % of the samples (else the largest), the success there,
the AUC of the disagreement of both channels (attacked against the same clean samples), accuracy of the attacked samples
as they are, after the attacked channel is made anew from the other (told which), and after the defense found out by
itself which (`repair=true`). Last, success of `pgd` that knows the detector, and has to stay below its threshold.

Command: ADVGYM_DATA=... python -m benchmarks.defenses.fusion    (--tasks fusion/synth-pair --samples 100 --json)
"""

from __future__ import annotations

import torch

import advgym
from advgym import registry
from advgym.core.kinds.parts import Part
from benchmarks._common import arguments, device_label, table
from benchmarks.defenses.inputs import Fixed, auc


def main() -> None:
    args = arguments(__doc__, tasks="fusion/synth-pair,fusion/mnist-fsdd", samples=100, steps=40, radii="1,2,3,4",
                     fusions="early,middle,late")  # fmt: skip
    lines = []
    for name in args.tasks.split(","):
        for fusion in args.fusions.split(","):
            for nth in (0, 1):
                lines.append(row(name, fusion, nth, args))
    head = ["task", "fusion", "attacked", "radius", "success", "AUC", "as it is", "told which", "repaired", "clean",
            "adaptive"]  # fmt: skip
    title = f"Disagreement of two channels, {args.samples} samples ({device_label(args.device)})"
    table(title, head, lines, args.json)


def row(name: str, fusion: str, nth: int, args) -> list[object]:
    victim = f"{name.partition('/')[2].removesuffix('-pair')}{'-pair' if name.endswith('-pair') else ''}-{fusion}"
    plain = advgym.make_task(name, victim=victim)
    part = Part(*plain.samples("test", [0]).parts[nth])
    for factor in map(float, args.radii.split(",")):
        budget = {
            "attacked": part.name,
            part.name: factor * part.radius,
            "queries": args.steps,
            "gradients": args.steps,
        }
        task = advgym.make_task(name, victim=victim, **budget)
        clean, found, labels = played(task, args)
        with torch.no_grad():
            wrong = task.victim(found).argmax(1) != labels
        success = float(wrong.double().mean())
        if success >= 0.9:
            break
    detect, repair = (registry.defense("consistency").defend(task.victim, task, **s) for s in ({}, {"repair": True}))
    model = repair.model
    with torch.no_grad():
        area = auc(detect.risk(clean), detect.risk(found))
        told = model.rebuilt(found, torch.full((len(found),), nth))
        right = [float((v.argmax(1) == labels).double().mean())
                 for v in (task.victim(found), task.victim(told), repair(found), repair(clean))]  # fmt: skip
    knows = advgym.attack(name, "pgd", victim=victim, defenses=["consistency"], episodes=args.samples,
                          clean=args.samples,
                          settings={"steps": args.steps}, **budget)  # fmt: skip
    return [name, fusion, part.name, factor * part.radius, success, area, *right, knows.success_rate]


def played(task, args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(clean inputs, inputs after pgd, labels) of samples that the victim has right."""
    env = advgym.AttackEnv(task, args.samples)
    obs, _ = env.reset(seed=0)
    held = registry.agent("pgd").attack(Fixed(env), steps=args.steps)
    return env.threat.apply(env.threat.null()), env.threat.apply(held.detach()), obs["output"]


if __name__ == "__main__":
    main()
