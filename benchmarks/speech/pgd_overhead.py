"""PGD-40 on transcripts through the environment against a bare loop, on the same victim and utterances.

Every lane runs all steps (the task asks for the least distortion, so a success does not end an episode). CPU seconds,
medians of interleaved rounds.

Command: ADVGYM_DATA=... python -m benchmarks.speech.pgd_overhead   (--batches 48 --repeat 3 --json)
"""

from __future__ import annotations

import torch

import advgym
from advgym import registry
from benchmarks._common import arguments, device_label, race, table


def main() -> None:
    args = arguments(__doc__, batches="48", task="speech/fsdd-transcribe", steps=40)
    task = advgym.make_task(args.task, least=True)
    rows = []
    for size in [int(b) for b in args.batches.split(",")]:
        took = race(runners(task, list(range(size)), args), args.repeat, args.device)
        rows += [[size, name, seconds, seconds / took["bare loop"]] for name, seconds in took.items()]
    table(f"PGD-{args.steps} on {args.task} ({device_label(args.device)})", ["batch", "runner", "s", "ratio"], rows,
          args.json)  # fmt: skip


def runners(task: advgym.Task, ids: list[int], args) -> dict:
    """PGD written out, and the agent through the environment."""
    pgd = registry.agent("pgd").attack
    env = advgym.AttackEnv(task, device=args.device, assigned=ids)
    env.reset(seed=0)
    ids = [ids[i] for i in env.live.nonzero().flatten().tolist()]  # both play those that the victim has right
    env = advgym.AttackEnv(task, device=args.device, assigned=ids)
    obs, _ = env.reset(seed=0)
    x, ref, start, eps = env.threat.apply(env.threat.null()), obs["output"], env.threat.random(0), env.threat.reach
    model, step = task.victim.on(args.device).model, (0.05 * eps).unsqueeze(1)
    wide = eps.unsqueeze(1)
    long = torch.full((len(ids),), model(x).shape[1])
    letters, count = ref.clamp_min(0), (ref >= 0).sum(1)

    def bare():
        delta = start.clone()
        for _ in range(args.steps):
            delta.requires_grad_()
            scores = model(x + delta).transpose(0, 1)
            loss = torch.nn.functional.ctc_loss(scores, letters, long, count, reduction="sum", zero_infinity=True)
            (g,) = torch.autograd.grad(loss, delta)
            delta = (delta.detach() + step * g.sign()).clamp(-wide, wide)
            delta = (x + delta).clamp_(-1, 1) - x
        return model(x + delta)

    return {"bare loop": bare, "advgym": lambda: pgd(_fresh(task, ids, args.device), steps=args.steps, seed=0)}


def _fresh(task: advgym.Task, ids: list[int], device: str):
    return advgym.AttackEnv(task, device=device, assigned=ids)


if __name__ == "__main__":
    main()
