"""One perturbation for many utterances (Linf .02), by `pgd` on the bundle, judged on others or other speakers.

Every step is played (`least=True`: a success ends nothing), and what the attack returns is judged. WER against
the truth over the verdict's own utterances, beside a random sign of the same size at every sample and the clean
recordings. Nothing is tuned on what is judged.

Command: ADVGYM_DATA=... python -m benchmarks.speech.universal   (--utterances 32 --steps 300 --json)
"""

from __future__ import annotations

import time

import torch

import advgym
from advgym import registry
from benchmarks._common import arguments, device_label, table


def main() -> None:
    args = arguments(__doc__, task="speech/fsdd-universal", utterances=32, steps=300, eps=0.02, agent="pgd",
                     unseen="utterances,speakers", **{"step-size": 0.05})  # fmt: skip
    rows: list[list[object]] = []
    for unseen in args.unseen.split(","):
        budget = (args.steps + 2) * args.utterances
        task = advgym.make_task(args.task, unseen=unseen, utterances=args.utterances, eps=args.eps, least=True,
                                queries=budget, gradients=budget)  # fmt: skip
        env = advgym.AttackEnv(task, assigned=[0], device=args.device)
        env.reset(seed=0)
        started = time.process_time()
        held = registry.agent(args.agent).attack(env, steps=args.steps, step_size=args.step_size, seed=0)
        took = time.process_time() - started
        sign = torch.sign(torch.rand(held.shape, generator=torch.Generator().manual_seed(1)) - 0.5).to(held) * args.eps
        for name, p in ((args.agent, held), ("random sign", sign), ("clean", torch.zeros_like(held))):
            rows.append([unseen, name, heard(task, p, seen=True), heard(task, p, seen=False), took])
    head = ["judged on other", "perturbation", "WER seen", "WER unseen", "CPU s of the attack"]
    table(f"Universal Linf {args.eps}, {args.utterances} utterances, {args.steps} steps ({device_label(args.device)})",
          head, rows, args.json)  # fmt: skip


def heard(task: advgym.Task, p: torch.Tensor, *, seen: bool) -> float:
    """WER of the utterances that the attack saw, or of those of the verdict, from what storage would leave of them."""
    deal = task.deal if seen else task.unseen
    batch = deal("test", [0], p.device)
    goal = task.goal.inner
    errors = words = 0
    with torch.no_grad():
        output = goal.output(task.victim.model(batch.inputs(batch.look(p).form)))
    for ids, truth in zip(output.tolist(), batch.labels.flatten(0, 1).tolist(), strict=True):
        said, meant = goal.text(ids).split(), goal.text(truth).split()
        errors, words = errors + distance(said, meant), words + len(meant)
    return errors / words


def distance(a: list[str], b: list[str]) -> int:
    """Word edits between two transcripts."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


if __name__ == "__main__":
    main()
