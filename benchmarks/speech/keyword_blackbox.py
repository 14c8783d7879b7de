"""Black-box attacks on a keyword classifier at Linf .02: success by queries, on the same clips and targets.

The first `--clips` test clips that the victim has right, default targets of seed 0; settings were chosen on other clips
(test clips from number 200 on, which are not among the first 100 that are attacked). A random draw is beside them.

Command: ADVGYM_DATA=... python -m benchmarks.speech.keyword_blackbox   (--agents tones,square --clips 100)
    label alone:  ... --knowledge decision --agents decision-search   (--goal untargeted)
"""

from __future__ import annotations

import time

import torch

import advgym
from advgym import registry
from advgym.judge.evaluator import evaluator
from benchmarks._common import arguments, device_label, table

MARKS = (1000, 2000, 5000, 10_000)


def main() -> None:
    args = arguments(__doc__, task="speech/fsdd-keyword", agents="tones,square,nes,siren,genetic,random-search",
                     clips=100, queries=10_000, goal="targeted", knowledge="score", eps=0.02, seed=0)  # fmt: skip
    marks = [m for m in MARKS if m <= args.queries]
    rows = []
    for name in args.agents.split(","):
        first, took = played(args, name)
        shares = [float(((first >= 0) & (first <= m)).float().mean()) for m in marks]
        rows.append([name, len(first), *shares, took])
        table(f"{args.goal}, {args.knowledge}, Linf {args.eps} ({device_label(args.device)})",
              ["agent", "clips", *[f"at {m}" for m in marks], "CPU s"], rows[-1:], args.json)  # fmt: skip
    table("together", ["agent", "clips", *[f"at {m}" for m in marks], "CPU s"], rows, args.json)


def played(args, name: str) -> tuple[torch.Tensor, float]:
    """(queries at the first success of each clip, -1 without, CPU seconds)."""
    entry = registry.agent(name)
    task = advgym.make_task(args.task, goal=args.goal, eps=args.eps, norm="linf", queries=args.queries,
                            knowledge=args.knowledge)  # fmt: skip
    look = advgym.AttackEnv(task, args.clips + 40, device=args.device)
    look.reset(seed=0, options={"samples": list(range(args.clips + 40))})
    ids = look.live.nonzero().flatten().tolist()[: args.clips]
    env = advgym.AttackEnv(task, assigned=ids, proposals=entry.proposals, device=args.device)
    env.reset(seed=0)
    started = time.process_time()
    entry.attack(env, seed=args.seed)
    return evaluator(env).book.first_success.cpu(), time.process_time() - started


if __name__ == "__main__":
    main()
