"""Backdoors in images and keywords: what the trigger does, what the poison costs, and who finds the poisoned rows.

For each task an attack hands in its rows for `--classes` target classes (for dirty labels `badnets`, for clean ones
`clean-label`; `noise` is the trigger alone on clean labels, random labels on dirty ones). A fresh training run on them
says: the share of held-out inputs with the trigger that are taken for the target, the accuracy on clean test inputs
(of a clean run beside it), and both again where a detector drops training rows first. AUC: of suspicion, poisoned rows
against the others that are labelled as the target; found and lost: shares of poisoned and of all other rows dropped.
Means over classes; budgets and settings are the tasks' and the defaults.

Command: ADVGYM_DATA=... python -m benchmarks.defenses.backdoors   (--tasks image/digits-poison --classes 3 --json)
"""

from __future__ import annotations

from dataclasses import replace

import torch

import advgym
from advgym import registry
from advgym.core.kinds.poison import PoisonRows
from benchmarks._common import arguments, device_label, table

TASKS = "image/digits-poison,image/digits-poison-clean,image/mnist-poison,image/mnist-poison-clean,speech/synth-poison,speech/synth-poison-clean,speech/fsdd-poison,speech/fsdd-poison-clean"  # noqa: E501
DETECTORS = ("spectral-signatures", "activation-clustering")
EVERY = 300  # clean test inputs that accuracy is on


def main() -> None:
    args = arguments(__doc__, tasks=TASKS, classes=3)
    lines = []
    for name in args.tasks.split(","):
        for agent in ("noise", "clean-label" if name.endswith("-clean") else "badnets"):
            lines += rows(name, agent, list(range(args.classes)), args.device)
    head = ["task", "agent", "detector", "triggered", "clean", "clean run", "AUC", "found", "lost"]
    table(f"Backdoors, {args.classes} target classes ({device_label(args.device)})", head, lines, args.json)


def rows(name: str, agent: str, classes: list[int], device: str) -> list[list[object]]:
    """Undefended, and behind each detector."""
    task = advgym.make_task(name)
    held = handed_in(task, agent, classes, device)
    judged = task.judged("test", classes, device)
    poisoned = judged.inputs(held)
    every = clean_inputs(task, device)
    out: list[list[object]] = []
    for detector in ("none", *(DETECTORS if agent != "noise" else ())):
        guard = task.victim if detector == "none" else registry.defense(detector).defend(task.victim, task)
        model = guard.on(device).model
        with torch.no_grad():
            said = model(poisoned, torch.arange(len(poisoned))).argmax(1).view(len(classes), -1)
            others = replace(poisoned, asked=every[0].expand(len(classes), *every[0].shape))
            clean = model(others, torch.arange(len(others))).argmax(1).view(len(classes), -1)
            none = PoisonRows(poisoned.sites[:1] * 0 - 1, poisoned.x[:1], poisoned.y[:1], every[0].unsqueeze(0))
            plain = model(none, torch.arange(len(none))).argmax(1)
        hit = float((said == torch.tensor(classes, device=said.device).unsqueeze(1)).double().mean())
        line = [name, agent, detector, hit, right(clean, every[1]), right(plain, every[1])]
        if detector == "none":
            out.append([*line, "", "", ""])
            continue
        found = torch.tensor([measured(model, poisoned, i, c) for i, c in enumerate(classes)])
        out.append([*line, *found.mean(0).tolist()])
    return out


def handed_in(task, agent: str, classes: list[int], device: str) -> torch.Tensor:
    """The perturbation that an agent proposes first."""
    env = advgym.AttackEnv(task, len(classes), device=device)
    env.reset(seed=0, options={"samples": classes})
    first = First(env)
    registry.agent(agent).attack(first)
    return first.asked


class First:
    """The environment, whose first answer is not waited for: it would be a training run."""

    def __init__(self, env) -> None:
        self.env, self.asked, self.done = env.view(), None, False

    def __getattr__(self, name: str):
        return getattr(self.env, name)

    def step(self, p):
        """Keep the proposal."""
        self.asked, self.done = p, True
        return {}, None, None, None, {}


def clean_inputs(task, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Test inputs without the trigger, and their labels."""
    batches = [task.samples("test", [0, 1], device), task.judged("test", [0, 1], device)]
    x, labels = (
        torch.cat([v.flatten(0, 1) for v in vs]) for vs in ([b.asked for b in batches], [b.labels for b in batches])
    )
    return x[:EVERY], labels[:EVERY]


def right(said: torch.Tensor, labels: torch.Tensor) -> float:
    return float((said == labels).double().mean())


def measured(model, rows: PoisonRows, nth: int, target: int) -> list[float]:
    """(AUC among the rows labelled as the target, share of the poisoned rows that is dropped, of all others)."""
    suspicion, dropped, poisoned = model.suspicion(rows, nth, nth)
    lost = float(dropped[~poisoned].double().mean())
    of = model.training_set(rows, nth)[1] == target
    suspicion, dropped, poisoned = suspicion[of], dropped[of], poisoned[of]
    apart = suspicion[poisoned].unsqueeze(1) - suspicion[~poisoned]
    auc = float(((apart > 0).double() + 0.5 * (apart == 0).double()).mean())
    return [auc, float(dropped[poisoned].double().mean()), lost]


if __name__ == "__main__":
    main()
