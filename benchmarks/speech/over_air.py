"""Targeted transcripts over the air: `pgd` and `cw-ctc` in expectation over rooms, judged in rooms that were not drawn.

Beside them what `cw-ctc` finds against the recogniser without a room (the first success of least distortion), played in
the same new rooms. A success is the exact target transcript in most of nine rooms; the share of single rooms is shown,
too.

Command: ADVGYM_DATA=... python -m benchmarks.speech.over_air   (--utterances 16 --steps 200 --eps 0.1 --json)
"""

from __future__ import annotations

import time

import torch

import advgym
from advgym import registry
from advgym.envs.speech.perturb import rooms
from benchmarks._common import arguments, device_label, table
from benchmarks.speech.cw_ctc import Fixed

NEW = 9  # rooms of the verdict, drawn under keys that no answer has


def main() -> None:
    args = arguments(__doc__, utterances=16, steps=200, eps=0.1, rooms=3)
    plain = advgym.make_task("speech/fsdd-transcribe", goal="targeted", least=True, norm="linf", eps=0.5,
                             queries=args.steps + 1, gradients=args.steps)  # fmt: skip
    budget = {"queries": args.steps + 1, "gradients": args.steps}
    aired = advgym.make_task("speech/fsdd-rooms", goal="targeted", least=True, norm="linf", eps=args.eps,
                             rooms=args.rooms, **budget)  # fmt: skip
    look = advgym.AttackEnv(plain, args.utterances + 12, device=args.device)
    look.reset(seed=0, options={"samples": list(range(args.utterances + 12))})
    ids = look.live.nonzero().flatten().tolist()[: args.utterances]
    rows = []
    for name, task, agent, settings in (
        ("cw-ctc without rooms", plain, "cw-ctc", {}),
        ("pgd, rooms", aired, "pgd", {"step_size": 0.1, "random_start": False}),
    ):  # fmt: skip
        env = advgym.AttackEnv(task, len(ids), device=args.device)
        obs, _ = env.reset(seed=0, options={"samples": ids})
        target, clean = obs["target"], env.threat.apply(env.threat.null())
        started = time.process_time()
        p = registry.agent(agent).attack(Fixed(env), steps=args.steps, seed=0, **settings)
        took = time.process_time() - started
        x = env.threat.apply(p)
        hits = heard(plain, x, target)
        db = 20 * torch.log10((x - clean).abs().amax(1) / clean.abs().amax(1))
        rows.append([name, len(ids), float((hits.sum(1) * 2 > NEW).float().mean()), float(hits.float().mean()),
                     float(db.mean()), took])  # fmt: skip
    head = ["attack", "utterances", "success in new rooms", "of single rooms", "mean dB_x", "CPU s"]
    table(f"Over the air, eps {args.eps} ({device_label(args.device)})", head, rows, args.json)


def heard(task: advgym.Task, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Bool (utterances, NEW): the exact target in each of nine new rooms."""
    out = []
    for nth in range(NEW):
        keys = torch.arange(len(x)) * NEW + nth + 10_000_019
        response = rooms.drawn(keys, 8000).to(x.device)
        with torch.no_grad():
            said = task.goal.output(task.victim.model(rooms.convolved(x, response)))
        out.append((said == target).all(1))
    return torch.stack(out, 1)


if __name__ == "__main__":
    main()
