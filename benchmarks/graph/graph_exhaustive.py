"""One edge: agents against the optimum by enumeration. Five edges: time per target against PyG's PRBCDAttack.

The first 50 targets of Cora's public test split that the victim has right, direct edges, a GCN with 16 hidden units.
The optimum of one edge is enumerated here, apart from any agent: every flip of the target's row, through the victim;
a part of it again by full PyG forwards. An agent is "optimal" on a target when the objective it reaches is the largest
one (within 1e-5). PRBCDAttack runs with its defaults (125 epochs) and the block of PyG's example, 250,000 pairs, on a
few of the targets; unlike the agents it may flip edges anywhere, and it takes one target at a time. Times are CPU
seconds of one thread, ours for 50 targets at once. Needs ADVGYM_DATA.

Command: python -m benchmarks.graph.graph_exhaustive   (--peer 3 targets, --edits 5, --json)
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from advgym import make, make_task, registry
from benchmarks._common import arguments, device_label, table

TARGETS, FULL = 50, 60


def opened(knowledge: str, edits: int, proposals: int | None, ids: list[int], *, least: bool) -> Any:
    """These targets, in a view, so that an agent's reset deals no others. With `least` a success ends nothing."""
    queries = 2708 * edits + 16
    env = make("graph/cora-edge", len(ids), knowledge=knowledge, edits=edits, queries=queries, least=least)
    env.reset(seed=0, options={"samples": ids})
    return env.view(proposals=proposals)


def enumerated(task: Any, ids: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """(largest objective (n,), objectives (n, N), clean answers (n,)) of all single direct flips, NaN at the target."""
    batch = task.samples("test", ids)
    size = batch.graph.size
    with torch.no_grad():
        ref = task.victim(batch.inputs(batch.null())).argmax(1)
        rows = torch.arange(len(ids)).repeat_interleave(size)
        flip = torch.stack([batch.target[rows], torch.arange(size).repeat(len(ids))], 1).unsqueeze(1)
        parts = []
        for index in (flip[:, 0, 0] != flip[:, 0, 1]).nonzero().squeeze(1).split(1 << 14):
            scores = task.victim(batch.inputs(flip[index], rows[index]))
            parts.append(task.goal.judge(scores, ref[rows[index]], None)[0])
    every = torch.full((len(rows),), torch.nan)
    every[flip[:, 0, 0] != flip[:, 0, 1]] = torch.cat(parts)
    every = every.view(len(ids), size)
    return every.nan_to_num(-torch.inf).amax(1), every, ref


def checked(task: Any, ids: list[int], every: Tensor, ref: Tensor) -> float:
    """The largest difference between the enumeration and full PyG forwards, on the best flips and on drawn ones."""
    batch, model = task.samples("test", ids), task.victim.model
    graph, worst = batch.graph, 0.0
    generator = torch.Generator().manual_seed(0)
    for n in range(FULL):
        i = n % len(ids)
        u = int(every[i].nan_to_num(-torch.inf).argmax()) if n < len(ids) else int(
            torch.randint(graph.size, (), generator=generator)
        )  # fmt: skip
        t, edges = int(batch.target[i]), graph.edge_index()
        if u == t:
            continue
        hit = ((edges[0] == t) & (edges[1] == u)) | ((edges[0] == u) & (edges[1] == t))
        edges = edges[:, ~hit] if bool(hit.any()) else torch.cat([edges, torch.tensor([[t, u], [u, t]])], 1)
        with torch.no_grad():
            scores = model.full(graph.inputs_x(), edges)[t].unsqueeze(0)
        worst = max(worst, abs(float(task.goal.judge(scores, ref[i : i + 1], None)[0] - every[i, u])))
    return worst


def agent_row(task: Any, name: str, knowledge: str, edits: int, ids: list[int], optimum: Tensor | None) -> list[object]:
    """[agent, knowledge, broken, optimal, seconds for all, seconds per target]; the verdict is the victim's."""
    entry = registry.agent(name)
    started = time.process_time()
    env = opened(knowledge, edits, entry.proposals, ids, least=False)
    entry.attack(env, seed=0)
    spent = time.process_time() - started

    def reached(held: Tensor) -> Tensor:
        batch = task.samples("test", ids)
        with torch.no_grad():
            ref = task.victim(batch.inputs(batch.null())).argmax(1)
            return task.goal.judge(task.victim(batch.inputs(batch.look(held).form)), ref, None)[0]

    broken = int((reached(env.view().reset()[0]["perturbation"]) > 1e-6).sum())
    optimal: object = ""
    if optimum is not None and knowledge != "decision":  # again, where a first success ends nothing
        env = opened(knowledge, edits, entry.proposals, ids, least=True)
        found = reached(entry.attack(env, seed=0))
        optimal = f"{int((found >= optimum - 1e-5).sum())} of {len(ids)}"
    elif optimum is not None:
        optimal = f"decision: {'all' if broken == int((optimum > 1e-6).sum()) else 'not all'}"
    return [name, knowledge, f"{broken} of {len(ids)}", optimal, spent, spent / len(ids)]


class Full(torch.nn.Module):
    """The victim's ordinary forward, as PyG's attack calls it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        return self.model.full(x, edge_index, edge_weight)


def prbcd(task: Any, ids: list[int], edits: int) -> tuple[int, float]:
    """(targets broken, CPU seconds per target) of PyG's attack."""
    from torch_geometric.contrib.nn import PRBCDAttack

    batch = task.samples("test", ids)
    graph, broken, spent = batch.graph, 0, 0.0
    labels = torch.zeros(graph.size, dtype=torch.int64)
    labels[batch.target] = batch.labels
    model = Full(task.victim.model).eval()
    for i, target in enumerate(batch.target.tolist()):
        torch.manual_seed(i)
        started = time.process_time()
        attack = PRBCDAttack(model, block_size=250_000, log=False)
        at = torch.tensor([target])
        edges, _ = attack.attack(graph.inputs_x(), graph.edge_index(), labels, budget=edits, idx_attack=at)
        spent += time.process_time() - started
        with torch.no_grad():
            broken += int(model(graph.inputs_x(), edges)[target].argmax() != labels[target])
    return broken, spent / len(ids)


def main() -> None:
    args = arguments(__doc__, peer=3, edits=5)
    task = make_task("graph/cora-edge")
    batch = task.samples("test", list(range(200)))
    with torch.no_grad():
        right = task.victim(batch.inputs(batch.null())).argmax(1) == batch.labels
    ids = right.nonzero().squeeze(1)[:TARGETS].tolist()
    started = time.process_time()
    optimum, every, ref = enumerated(task, ids)
    plain = time.process_time() - started
    head = ["agent", "knowledge", "broken", "optimal", "s, 50 targets", "s per target"]
    rows: list[list[object]] = [
        ["(enumeration, no agent)", "", f"{int((optimum > 1e-6).sum())} of {TARGETS}", "", plain, plain / TARGETS]
    ]
    for name, knowledge in (
        ("exhaustive", "decision"), ("exhaustive", "score"), ("first-order", "white-box"), ("fga", "white-box"),
    ):  # fmt: skip
        rows.append(agent_row(task, name, knowledge, 1, ids, optimum))
    table(f"One edge, {every.shape[1] - 1} flips per target ({device_label('cpu')})", head, rows, args.json)
    if not args.json:
        print(
            f"  enumeration against {FULL} full PyG forwards: largest difference {checked(task, ids, every, ref):.1e}"
        )
    rows = []
    for name, knowledge in (("fga", "white-box"), ("first-order", "white-box"), ("exhaustive", "score")):
        row = agent_row(task, name, knowledge, args.edits, ids, None)
        rows.append(row[:3] + row[4:])
    if args.peer:
        broken, each = prbcd(task, ids[: args.peer], args.edits)
        for row in rows:
            row.append(each / float(str(row[4])))
        rows.append(["PyG PRBCDAttack", "white-box", f"{broken} of {args.peer}", "", each, 1.0])
    head = [*head[:3], *head[4:], *(["PyG's time is times ours"] if args.peer else [])]
    table(f"{args.edits} edges", head, rows, args.json)


if __name__ == "__main__":
    main()
