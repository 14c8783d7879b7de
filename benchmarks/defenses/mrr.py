"""Modular robust redundancy on MNIST: both tables of its source in form, with what the source published beside them.

Black box: five attacks on `mnist-cnn` that do not know of the modules; AUC of the risk, on the clean images against the
attacked ones that fool the victim. FGS at Linf .1, .2 and .3 (the published row is over several sizes, as is "fgs"
here), BIM at .2, JSMA, DeepFool and CW-L2 as near as they get. Two latent modules and one input module.

White box: attacks for the least L2 distortion that follow the gradient of victim and risk (`adaptive=true`), CW-L2, the
source's, and DDN. N latent modules, one input module, security parameter 1 % and 5 % for each module. Defense success:
the share of images on which no fooling, undetected perturbation was found; L2: the mean over those where one was, over
that of N = 0; false positives on other test images. The published white-box table is in the paper alone, and is not
printed here.

Tuned on training images from 50,000 on (rank, statistic, number of samples; the rate and steps of cw, so that it fools
the bare victim everywhere in few queries); all figures are of test images.

Command: ADVGYM_DATA=... python -m benchmarks.defenses.mrr    (--part black,white --images 200 --white 10 --clean 2000)
"""

from __future__ import annotations

import time

import torch

import advgym
from advgym import registry
from advgym.lib.tallies import auc
from benchmarks._common import arguments, device_label, table

FAR = 12.0  # the least distortion is sought within it
BLACK = {  # name: task, agent, queries, constraint, settings
    "fgs .1": ("image/mnist-linf", "fgsm", 4, {"eps": 0.1}, {}),
    "fgs .2": ("image/mnist-linf", "fgsm", 4, {"eps": 0.2}, {}),
    "fgs .3": ("image/mnist-linf", "fgsm", 4, {"eps": 0.3}, {}),
    "jsma": ("image/mnist-l0", "jsma", 400, {"eps": 200}, {}),
    "deepfool": ("image/mnist-l2", "deepfool", 100, {"eps": FAR}, {}),
    "cw": ("image/mnist-l2", "cw", 500, {"eps": FAR}, {"steps": 100, "search": 4}),
    "bim": ("image/mnist-linf", "bim", 40, {"eps": 0.2}, {}),
}
PUBLISHED = {"fgs": 0.996, "jsma": 0.995, "deepfool": 0.996, "cw": 0.989, "bim": 0.994}


def main() -> None:
    args = arguments(__doc__, part="black,white", images=200, white=10, clean=2000, modules="0,1,2,4,8,16",
                     rates="0.01,0.05", steps=40, samples=3000)  # fmt: skip
    if "black" in args.part:
        black(args)
    if "white" in args.part:
        white(args)


def black(args) -> None:
    """AUC against attacks that do not know of the detector."""
    task = advgym.make_task("image/mnist-l2")
    guard = registry.defense("mrr").defend(task.victim, task)
    ids, lines, pools = list(range(args.images)), [], []
    for name, (where, agent, queries, constraint, settings) in BLACK.items():
        made = advgym.make_task(where, queries=queries, gradients=20 * queries, least=True, **constraint)
        clean, moved, won, _ = played(made, agent, ids, settings)
        with torch.no_grad():
            risks = guard.risk(clean), guard.risk(moved[won])
        pools += [(name, won, *risks)]
        lines.append(row(name, [pools[-1]]))
    lines.insert(3, row("fgs", [p for p in pools if p[0].startswith("fgs")]))
    head = ["attack", "AUC", "published", "found at .5", "fooled", "clean"]
    table(f"Black box, {args.images} test images, mrr as it is by default ({device_label(args.device)})", head, lines,
          args.json)  # fmt: skip


def row(name: str, pools: list) -> list:
    clean, attacked = (torch.cat([p[k] for p in pools]) for k in (2, 3))
    won = torch.cat([p[1] for p in pools]).float().mean()
    return [name, auc(clean, attacked), PUBLISHED.get(name, ""), float((attacked >= 0.5).float().mean()), float(won),
            float((clean >= 0.5).float().mean())]  # fmt: skip


def white(args) -> None:
    """What is left of it against an attacker who knows all modules."""
    ids, lines, first = list(range(args.white)), [], {}
    attacks = {"cw": {"steps": args.steps, "search": 4, "rate": 0.2}, "ddn": {"steps": 3 * args.steps // 2}}
    others = advgym.make_task("image/mnist-l2").samples("test", list(range(5000, 5000 + args.clean))).x
    for rate in map(float, args.rates.split(",")):
        for n in map(int, args.modules.split(",")):
            options = {"modules": n, "rate": rate, "samples": args.samples}
            line: list[object] = [rate, n]
            started = time.process_time()
            for name, settings in attacks.items():
                if n == 0 and name in first:
                    line += [1 - first[name][0], 1.0]
                    continue
                queries = args.steps * 4 + 20
                made = advgym.make_task("image/mnist-l2", queries=queries, gradients=queries, least=True, eps=FAR,
                                        defenses=[("mrr", options)] if n else [])  # fmt: skip
                if n and name == "cw":  # no margin is enough: it goes on until it is not found out either
                    settings = {**settings, "confidence": 50.0}
                _, _, won, distance = played(made, name, ids, settings)
                share, mean = float(won.float().mean()), float(distance[won].mean())
                first.setdefault(name, (share, mean))
                line += [1 - share, mean / first[name][1]]
            false = false_positives(made.victim, others) if n else 0.0
            lines.append([*line, false, time.process_time() - started])
            print(lines[-1], flush=True)
    head = ["rate", "N", "cw: defended", "L2", "ddn: defended", "L2", "false positives", "CPU s"]
    distances = ", ".join(f"{k} {v[1]:.3g}" for k, v in first.items())
    table(f"White box, {args.white} test images, {args.samples} training samples, cw of 4 x {args.steps} steps, ddn of "
          f"{3 * args.steps // 2}; L2 at N = 0: {distances}", head, lines, args.json)  # fmt: skip


@torch.no_grad()
def false_positives(victim, x: torch.Tensor) -> float:
    return float(torch.cat([victim.risk(part) >= victim.threshold for part in x.split(250)]).float().mean())


def played(task, agent: str, ids: list[int], settings: dict) -> tuple[torch.Tensor, ...]:
    """(clean images, attacked ones, whether they fool the victim and are not found, their L2) of the samples `ids`."""
    env = advgym.AttackEnv(task, assigned=ids)
    registry.agent(agent).attack(env, **settings)
    p = env.reset()[0]["perturbation"]
    clean, moved = env.threat.apply(env.threat.null()), env.threat.apply(p)
    with torch.no_grad():
        won = task.victim(moved).argmax(1) != task.victim(clean).argmax(1)
        if task.victim.risk is not None:
            won &= task.victim.risk(moved) < task.victim.threshold
    return clean, moved, won, (moved - clean).flatten(1).norm(dim=1)


if __name__ == "__main__":
    main()
