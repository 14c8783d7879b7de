"""Least distortion in Linf, L2, L1 and L0: local optimality (AttackBench, Cina et al. 2024) beside the peers' attacks.

    python -m benchmarks.image.least_distortion [--norms l2,l0] [--samples 50] [--propagations 2000] [--only cw,ddn]

Every attack has the same budget of forwards and backwards of each sample, metered by the environment, on the same MNIST
images and victim. Peers are those that are installed: foolbox; adv-lib (pip install --no-deps adv-lib==0.2.8, and
torchvision and visdom, which it imports) is named where it is missing. Local optimality is against the nearest
success of any attack on each sample, ours among them.
"""

from __future__ import annotations

import importlib.util
import math
import time
from typing import Any

import numpy as np
import torch

import advgym
from advgym import registry
from advgym.core.env import AttackEnv
from advgym.judge.distortion import optimality
from advgym.judge.evaluator import evaluator
from benchmarks._common import arguments, table
from benchmarks.image._victims import robust

# (agent, settings) by norm; K stands for how many pairs of a forward and a backward there are.
OURS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "linf": [("fmn", {"steps": "K", "alpha": 3.0}), ("pdpgd", {"steps": "K"}), ("fab", {"steps": "K/4", "restarts": 4}),
             ("deepfool", {}), ("cw", {"steps": "K/20"})],
    "l2": [("ddn", {"steps": "K"}), ("fmn", {"steps": "K"}), ("pdpgd", {"steps": "K"}),
           ("fab", {"steps": "K/4", "restarts": 4}), ("deepfool", {}), ("cw", {"steps": "K/5"})],
    "l1": [("fmn", {"steps": "K"}), ("pdpgd", {"steps": "K"}), ("fab", {"steps": "K/4", "restarts": 4}),
           ("ead", {"steps": "K/5"})],
    "l0": [("sigma-zero", {"steps": "K"}), ("fmn", {"steps": "K"}), ("pdpgd", {"steps": "K"}),
           ("cw", {"steps": "K/20"}), ("jsma", {})],
}  # fmt: skip
PEERS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "linf": [("adv-lib:fmn", {"steps": "K"}), ("adv-lib:pdpgd", {"num_steps": "K"}),
             ("foolbox:LinfDeepFoolAttack", {})],
    "l2": [("adv-lib:ddn", {"steps": "K"}), ("adv-lib:fmn", {"steps": "K"}), ("foolbox:DDNAttack", {"steps": "K"}),
           ("foolbox:L2DeepFoolAttack", {}),
           ("foolbox:L2CarliniWagnerAttack", {"steps": "K/9", "binary_search_steps": 9})],
    "l1": [("adv-lib:fmn", {"steps": "K"}), ("adv-lib:pdpgd", {"num_steps": "K"}),
           ("foolbox:EADAttack", {"steps": "K/9", "binary_search_steps": 9})],
    "l0": [("adv-lib:sigma_zero", {"num_steps": "K"}), ("adv-lib:fmn", {"steps": "K"})],
}  # fmt: skip
EPS = {"linf": 1 - 1e-6, "l2": 27.99, "l1": 783.9, "l0": 783}


def main() -> None:
    args = arguments(
        __doc__, norms="linf,l2,l1,l0", samples=50, first=0, propagations=2000, victim="cnn", peers=1, only=""
    )
    missing = [
        p for p, module in (("adv-lib", "adv_lib"), ("foolbox", "foolbox")) if not importlib.util.find_spec(module)
    ]
    if missing:
        print(f"not installed, so left out: {', '.join(missing)}")
    for norm in args.norms.split(","):
        task = advgym.make_task(
            f"image/mnist-{norm}", victim="mnist-cnn" if args.victim == "cnn" else robust(), eps=EPS[norm], lattice=0,
            least=True, queries=args.propagations, gradients=args.propagations,
        )  # fmt: skip
        found: dict[str, tuple[np.ndarray, float, float]] = {}
        for name, settings in OURS[norm] + (PEERS[norm] if args.peers else []):
            if name.split(":")[0] not in missing and (not args.only or name in args.only.split(",")):
                found[name] = played(task, name, settings, args)
        best = np.min([d for d, _, _ in found.values()], axis=0)
        far = float(best[np.isfinite(best)].max())
        rows: list[list[Any]] = [
            [name, optimality(d, best, far), float(np.isfinite(d).mean()), float(np.median(d)), spent, seconds]
            for name, (d, spent, seconds) in found.items()
        ]
        rows.sort(key=lambda row: -row[1])
        head = ["attack", "local optimality", "success", "median", "propagations", "CPU s"]
        table(f"{norm}, {args.victim}, {args.samples} MNIST images from {args.first}", head, rows, args.json)


def played(task: Any, name: str, settings: dict[str, Any], args: Any) -> tuple[np.ndarray, float, float]:
    """(distances of the attacked samples, propagations of each, CPU seconds)."""
    pairs = args.propagations // 2
    given = {k: pairs // int(v[2:] or 1) if isinstance(v, str) and v[0] == "K" else v for k, v in settings.items()}
    entry = registry.agent(name)
    env = AttackEnv(task, proposals=entry.proposals, assigned=list(range(args.first, args.first + args.samples)))
    env.reset(seed=0)
    started = time.process_time()
    entry.attack(env, seed=0, **given)
    seconds = time.process_time() - started
    book, batch = evaluator(env).book, evaluator(env).batch
    attacked = book.reason != 4
    far = torch.where(book.success, batch.look(book.held).distance, math.inf)[attacked]
    spent = (book.used + task.threat.gradients - book.gradients_left)[attacked].double().mean()
    return far.double().numpy(), float(spent), seconds


if __name__ == "__main__":
    main()
