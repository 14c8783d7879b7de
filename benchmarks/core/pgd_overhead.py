"""PGD-40 through the environment against a bare loop and the peers, on the same MNIST victim and samples.

Every lane runs all 40 steps (the task asks for the least distortion, so a success does not end an episode).
"""

from __future__ import annotations

import torch

import advgym
from advgym import registry
from benchmarks._common import arguments, device_label, race, table


def main() -> None:
    args = arguments(__doc__, batches="1,32,256", task="image/mnist-linf", steps=40)
    task = advgym.make_task(args.task, least=True)
    rows = []
    for size in [int(b) for b in args.batches.split(",")]:
        runners = race_card(task, list(range(size)), args)
        took = race(runners, args.repeat, args.device)
        for name, seconds in took.items():
            over = (seconds - took["bare loop"]) / args.steps * 1e3
            rows.append([size, name, seconds * 1e3, seconds / took["bare loop"], over])
    head = ["batch", "runner", "ms", "ratio", "ms per step over the bare loop"]
    table(f"PGD-{args.steps} on {args.task} ({device_label(args.device)})", head, rows, args.json)


def race_card(task: advgym.Task, ids: list[int], args) -> dict:
    """The runners on one batch of samples."""
    model, eps = task.victim.on(args.device).model, task.threat.constraint["eps"]
    batch = task.samples("test", ids, args.device)
    x, y, step, start = batch.x, model(batch.x).argmax(1), 0.05 * eps, batch.random(0)
    pgd = registry.agent("pgd").attack

    def bare():
        delta = start.clone()
        for _ in range(args.steps):
            delta.requires_grad_()
            loss = torch.nn.functional.cross_entropy(model(x + delta), y, reduction="sum")
            (g,) = torch.autograd.grad(loss, delta)
            delta = (delta.detach() + step * g.sign()).clamp_(-eps, eps)
            delta = (x + delta).clamp_(0, 1) - x
        return model(x + delta)

    def ours():
        pgd(advgym.AttackEnv(task, device=args.device, assigned=ids), steps=args.steps, seed=0)

    return {"bare loop": bare, "advgym": ours, **peers(model, x, y, eps, step, args)}


def peers(model, x, y, eps: float, step: float, args) -> dict:
    """Foolbox and torchattacks, where they are installed (torchattacks: pip install --no-deps torchattacks==3.5.1)."""
    found = {}
    try:
        import foolbox

        fmodel = foolbox.PyTorchModel(model, bounds=(0, 1), device=args.device)
        attack = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=args.steps)
        found["foolbox"] = lambda: attack.run(fmodel, x, foolbox.criteria.Misclassification(y), epsilon=eps)
    except ImportError:
        pass
    try:
        import torchattacks

        torch_attack = torchattacks.PGD(model, eps=eps, alpha=step, steps=args.steps)
        found["torchattacks"] = lambda: torch_attack(x, y)
    except ImportError:
        pass
    return found


if __name__ == "__main__":
    main()
