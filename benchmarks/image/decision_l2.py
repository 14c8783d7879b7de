"""L2 from labels alone at 1,000, 5,000 and 10,000 queries: our agents beside Foolbox's, on one victim and its samples.

    python -m benchmarks.image.decision_l2 --episodes 60

What is counted is the same for all: after each query the nearest adversarial input that was asked so far, in float64,
whether the attack noticed it or not. Ours are asked on bytes (lattice 255), Foolbox's on floats, to its favour. Foolbox
asks about all images at once, each asking counts one query for each of them, as it does in its own loops.
"""

from __future__ import annotations

import contextlib
import sys
import time

import torch

import advgym
from advgym import registry
from advgym.lib.foreign import own_states
from benchmarks._common import arguments, table

MARKS = (250, 1000, 5000, 10_000)


class Best:
    """The nearest success of each sample at each mark of queries."""

    def __init__(self, many: int) -> None:
        self.used = torch.zeros(many, dtype=torch.int64)
        self.best = torch.full((many,), torch.inf, dtype=torch.float64)
        self.at = {m: self.best.clone() for m in MARKS}

    def see(self, distance: torch.Tensor, asked: torch.Tensor) -> None:
        """Distances (many, Q) of what was asked, inf where it is no success; asked: bool (many, Q), in order."""
        nth = self.used.unsqueeze(1) + asked.long().cumsum(1)
        distance = torch.where(asked, distance.double(), torch.inf)
        for mark, held in self.at.items():
            self.at[mark] = torch.minimum(held, torch.where(nth <= mark, distance, torch.inf).amin(1))
        self.used = self.used + asked.sum(1)


class Spent(Exception):
    """The budget is."""


def ours(name: str, task, ids: list[int], seed: int) -> Best:
    """One of our agents, spied on at the environment."""
    entry = registry.agent(name)
    env, found = advgym.AttackEnv(task, proposals=entry.proposals, assigned=ids), Best(len(ids))
    step = env.step

    def spy(p):
        out = step(p)
        hit, asked, size = (out[0][k].view(len(ids), -1) for k in ("success", "evaluated", "distance"))
        found.see(torch.where(hit, size, torch.inf), asked)
        return out

    env.step = spy
    entry.attack(env, seed=seed)
    return found


def theirs(name: str, model, x: torch.Tensor, label: torch.Tensor, queries: int, seed: int) -> Best:
    """One of Foolbox's attacks with its own defaults."""
    import foolbox

    found = Best(len(x))

    class Spied(torch.nn.Module):
        def forward(self, asked):
            if int(found.used[0]) >= queries:
                raise Spent
            with torch.no_grad():
                scores = model(asked)
            size = (asked.double() - x.double()).flatten(1).norm(dim=1)
            hit = scores.argmax(1) != label
            found.see(torch.where(hit, size, torch.inf).unsqueeze(1), torch.ones(len(x), 1, dtype=torch.bool))
            return scores

    peer = foolbox.PyTorchModel(Spied().eval(), bounds=(0, 1), device=x.device)
    attack = getattr(foolbox.attacks, name)()
    with own_states(seed), contextlib.suppress(Spent):
        attack.run(peer, x, foolbox.criteria.Misclassification(label), early_stop=None)
    return found


def main() -> None:
    args = arguments(
        __doc__, episodes=60, first=0, queries=10_000, victim="mnist-cnn", dataset="mnist", seed=0,
        agents="cgba,hopskipjump,boundary", peers="HopSkipJumpAttack,BoundaryAttack",
    )  # fmt: skip
    task = advgym.make_task(
        "image/l2", victim=args.victim, dataset=args.dataset, eps=20.0, queries=args.queries, least=True,
        knowledge="decision",
    )  # fmt: skip
    batch = task.samples("test", list(range(args.first, args.first + 2 * args.episodes)))
    right = task.victim(batch.x).argmax(1) == batch.labels
    ids = batch.ids[right][: args.episodes].tolist()
    batch = task.samples("test", ids)
    model = task.victim.module.eval()
    rows = []
    runs = [(f"advgym {n}", lambda n=n: ours(n, task, ids, args.seed)) for n in args.agents.split(",") if n]
    runs += [
        (f"foolbox {n}", lambda n=n: theirs(n, model, batch.x, batch.labels, args.queries, args.seed))
        for n in args.peers.split(",") if n
    ]  # fmt: skip
    for name, run in runs:
        started = time.process_time()
        found = run()
        spent = time.process_time() - started
        rows.append([name, *(float(found.at[m].median()) for m in MARKS), int(found.used.max()), spent])
        print(*rows[-1], file=sys.stderr, flush=True)  # each takes minutes
    head = ["attack", *(f"L2 at {m}" for m in MARKS), "most queries", "CPU s"]
    what = f"images {ids[0]} to {ids[-1]} that {args.victim} has right ({len(ids)})"
    table(f"Median L2 from labels, {what}", head, rows, args.json)


if __name__ == "__main__":
    main()
