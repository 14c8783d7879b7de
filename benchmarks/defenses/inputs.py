"""Transforms and detectors in front of a victim: robust accuracy under a naive and an adaptive attacker, and AUC.

Two rows of gradients for each defense, the same agent, samples and budget: plain (`adaptive=false`: zeros where a
transform rounds, else the undefended victim's) and adaptive (`adaptive=true`). Both are judged on the defended victim,
and both may stop at the first success. Images: `pgd` on mnist-cnn at Linf `--eps`; speech: `pgd` on fsdd-keyword at
Linf .02. Detectors: AUC of the risk, on clean test samples against the same samples attacked by `pgd` without the
detector, and the share of clean samples above the threshold. Settings are the defaults; nothing was tuned on these.

Command: ADVGYM_DATA=... python -m benchmarks.defenses.inputs    (--images 60 --clips 30 --steps 200 --only a,b)
"""

from __future__ import annotations

import time

import torch

import advgym
from advgym import registry
from advgym.lib.settings import settings_of
from advgym.lib.tallies import auc
from benchmarks._common import arguments, device_label, table

IMAGES = ("jpeg", "bit-depth", "median", "median:size=5", "magnet", "total-variation", "reformer", "rectifier",
          "purifier", "denoised-smoothing")  # fmt: skip
SPEECH = ("quantise", "mu-law", "median", "average", "low-pass", "band-pass", "resample", "codec",
          "spectral-subtraction", "wiener")  # fmt: skip
DETECTORS = (("image/mnist-linf", "magnet"), ("image/mnist-linf", "distribution"),
             ("speech/fsdd-keyword", "distribution"), ("speech/fsdd-transcribe", "distribution"),
             ("speech/fsdd-transcribe", "temporal-dependency"))  # fmt: skip


def main() -> None:
    args = arguments(
        __doc__, images=60, clips=30, steps=200, eps="0.3,0.2", detected=40, part="images,speech,detectors", only=""
    )
    parts = args.part.split(",")
    if "images" in parts:
        for eps in args.eps.split(","):
            rows("image/mnist-linf", IMAGES, args.images, args, eps=eps)
    if "speech" in parts:
        rows("speech/fsdd-keyword", SPEECH, args.clips, args)
    if "detectors" in parts:
        detectors(args)


def rows(name: str, defenses: tuple[str, ...], count: int, args, **constraint: object) -> None:
    """The plain and the adaptive row of each defense."""
    lines = [["none", *played(name, [], count, args, constraint)[:2], "", "", 0.0]]
    for defense in [d for d in defenses if d in args.only.split(",") or not args.only]:
        started = time.process_time()
        label, given = defense_named(defense)
        found = [
            played(name, [(label, {**given, "adaptive": adaptive})], count, args, constraint)
            for adaptive in (False, True)
        ]
        clean, plain, adaptive = found[0][0], found[0][1], found[1][1]
        lines.append([defense, clean, plain, adaptive, 100 * (plain - adaptive), time.process_time() - started])
        print(lines[-1], flush=True)
    title = f"{name} {constraint or ''}, {count} samples, pgd of {args.steps} steps ({device_label(args.device)})"
    table(title, ["defense", "clean", "plain", "adaptive", "points", "CPU s"], lines, args.json)


def played(name: str, defenses: list, count: int, args, constraint: dict) -> tuple[float, float]:
    """(clean accuracy, robust accuracy) on the first `count` samples."""
    budget = {"queries": args.steps, "gradients": args.steps, "settings": {"steps": args.steps}}
    result = advgym.attack(name, "pgd", episodes=count, lanes=min(count, 100), clean=count, defenses=defenses,
                           device=args.device, **budget, **constraint)  # fmt: skip
    return result.clean_accuracy, result.robust_accuracy


def defense_named(text: str) -> tuple[str, dict[str, int]]:
    """A defense's name and its settings, of NAME or NAME:setting=whole number."""
    name, _, rest = text.partition(":")
    return name, {k: int(v) for k, v in [rest.split("=")]} if rest else {}


def detectors(args) -> None:
    lines = []
    for name, defense in DETECTORS:
        task = advgym.make_task(name, queries=args.steps, gradients=args.steps)
        env = advgym.AttackEnv(task, args.detected, device=args.device)
        env.reset(seed=0, options={"samples": list(range(args.detected))})
        held = registry.agent("pgd").attack(Fixed(env), steps=args.steps)
        guarded = registry.defense(defense).defend(task.victim, task)
        rate = settings_of(registry.defense(defense).defend)["rate"]
        with torch.no_grad():
            clean = guarded.risk(env.threat.apply(env.threat.null()))
            found = guarded.risk(env.threat.apply(held))
        lines.append([name, defense, auc(clean, found), float((clean >= guarded.threshold).float().mean()), rate,
                      float((found >= guarded.threshold).float().mean()), len(found)])  # fmt: skip
    head = ["task", "detector", "AUC", "clean found", "of", "attacked found", "samples"]
    table(f"Detectors against pgd that does not know them ({device_label(args.device)})", head, lines, args.json)


class Fixed:
    """The environment, whose reset deals nothing anew."""

    def __init__(self, env) -> None:
        self.env = env.view()

    def __getattr__(self, name: str):
        return getattr(self.env, name)


if __name__ == "__main__":
    main()
