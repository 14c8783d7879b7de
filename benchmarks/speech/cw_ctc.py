"""`cw-ctc` and `imperceptible` on connected digits, targeted, against asr-attacks: success, distortion, speed.

The first 48 test utterances that the victim has right; default targets of two seeds. Everything is re-scored from the
16-bit samples that a file would hold, by the victim alone: the exact target transcript, and dB_x = 20 log10 of peak
change over peak signal; the mask excess is the mean of the dB above the masking threshold over all cells.
The peer plays the first `--peer` of them with its own defaults (`--peer-steps` iterations) on the same
victim in the same run: `pip install --no-deps --target DIR asr-attacks==0.3.0`, `--peers DIR`.

Command: ADVGYM_DATA=... python -m benchmarks.speech.cw_ctc --peers DIR    (--steps 300,100, --seeds 0,1, --json)
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

import advgym
from advgym import registry
from advgym.envs.speech.constraints import masking
from advgym.judge.evaluator import evaluator
from benchmarks._common import arguments, device_label, table

LEVELS, RATE = 32768, 8000
EPS = 0.5  # of full scale: the bound starts at `start` of it


def main() -> None:
    args = arguments(__doc__, task="speech/fsdd-transcribe", utterances=48, steps="300,100", seeds="0,1", peers="",
                     peer=12, imperceptible=500, **{"peer-steps": 300})  # fmt: skip
    rows = []
    for seed in [int(s) for s in args.seeds.split(",")]:
        for steps in [int(s) for s in args.steps.split(",") if s]:
            rows.append(["cw-ctc", steps, seed, *ours(args, "cw-ctc", "linf", EPS, steps, seed)])
        if args.imperceptible:
            steps = args.imperceptible
            rows.append(["imperceptible", steps, seed, *ours(args, "imperceptible", "mask", 3.0, steps, seed)])
        if args.peers:
            rows.append(["asr-attacks 0.3.0 CW", args.peer_steps, seed, *peer(args, seed)])
    if not args.peers:
        print("asr-attacks is missing: pip install --no-deps --target DIR asr-attacks==0.3.0, then --peers DIR")
    head = [
        "attack",
        "iterations",
        "seed",
        "utterances",
        "exact",
        "mean dB_x",
        "median",
        "loudest",
        "mask excess",
        "per CPU s",
    ]
    table(f"Targeted transcripts on {args.task} ({device_label(args.device)})", head, rows, args.json)


def opened(args, count: int, norm: str, eps: float, steps: int, seed: int):
    """An environment on the first `count` utterances that the victim has right, and their clean inputs and targets."""
    task = advgym.make_task(args.task, goal="targeted", least=True, norm=norm, eps=eps, queries=steps + 1,
                            gradients=steps)  # fmt: skip
    env = advgym.AttackEnv(task, count + 16, device=args.device)
    env.reset(seed=seed, options={"samples": list(range(count + 16))})
    ids = env.live.nonzero().flatten().tolist()[:count]
    env = advgym.AttackEnv(task, len(ids), device=args.device)
    obs, _ = env.reset(seed=seed, options={"samples": ids})
    return task, env, env.threat.apply(env.threat.null()), obs["target"]


class Fixed:
    """The environment, whose reset deals nothing anew."""

    def __init__(self, env) -> None:
        self.env = env.view()

    def __getattr__(self, name: str):
        return getattr(self.env, name)


def ours(args, agent: str, norm: str, eps: float, steps: int, seed: int) -> list[object]:
    task, env, _, target = opened(args, args.utterances, norm, eps, steps, seed)
    started = time.process_time()
    held = registry.agent(agent).attack(Fixed(env), steps=steps, seed=seed)
    took = time.process_time() - started
    return scored(task, env, env.threat.apply(held), target, took)


def scored(task, env, attacked: torch.Tensor, target: torch.Tensor, took: float) -> list[object]:
    """What a file would hold, heard again."""
    clean, length = env.threat.apply(env.threat.null()).cpu(), evaluator(env).batch.length.cpu()
    pcm = np.clip(np.rint(attacked.detach().double().cpu().numpy() * LEVELS), -LEVELS, LEVELS - 1).astype("<i2")
    heard = torch.from_numpy(pcm.astype(np.float32)) / LEVELS
    with torch.no_grad():
        output = task.goal.output(task.victim.model(heard))
    exact = (output == target.cpu()).all(1)
    change, n = heard - clean, len(clean)
    db = 20 * torch.log10(change.abs().amax(1) / clean.abs().amax(1))[exact]
    excess = masking.excess_db(change, masking.threshold_db(clean, RATE), length, RATE)[exact]
    return [
        n,
        f"{int(exact.sum())}/{n}",
        float(db.mean()),
        float(db.median()),
        float(db.max()),
        float(excess.mean()),
        n / took,
    ]


def peer(args, seed: int) -> list[object]:
    sys.path.insert(0, args.peers)
    from asr_attacks import ASRAttacker
    from asr_attacks.backends.module import CTCModuleBackend

    task, env, clean, target = opened(args, args.peer, "linf", EPS, 1, seed)
    backend = CTCModuleBackend(task.victim.model, ["-", *task.goal.alphabet])
    attacker = ASRAttacker(backend, verbose=False)
    found = []
    started = time.process_time()
    for x, ids in zip(clean, target.tolist(), strict=True):
        out = attacker.cw(x.numpy(), target=task.goal.text(ids), targeted=True, num_iter=args.peer_steps)
        found.append(torch.as_tensor(out).reshape(-1).float())
    took = time.process_time() - started
    return scored(task, env, torch.stack(found), target, took)


if __name__ == "__main__":
    main()
