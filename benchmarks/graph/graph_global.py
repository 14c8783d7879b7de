"""Global attacks on Cora in the protocol of PyG's own example: PyG's PRBCD against ours, on the same trained models.

Protocol (examples/contrib/rbcd_attack.py of PyG 2.8): Planetoid Cora, public split, rows normalised, a GCN of 16 hidden
units trained for 200 epochs, seeds 0 to `--seeds` less one; the whole test set of 1,000 nodes is attacked by eps x the
undirected edges, with the true labels. PyG's: `PRBCDAttack`, block 250,000, 125 epochs, lr 2,000, as there. Ours goes
through the gym (`advgym.attack`), which asks for the nodes that the victim has right. Every set of flips is applied to
the clean graph again and PyG's forward of it gives the accuracy of all 1,000 nodes, mean and standard deviation over
seeds. CPU seconds are those of the attack, for ours also with everything the gym does besides (the task, the clean
pass, the control, the verifier). The ratio is PyG's seconds over ours. Our agents run at their defaults,
and nothing was tuned on these models; `coverage` was made on split 100 of Cora-ML. Needs ADVGYM_DATA.

Command: nice python -m benchmarks.graph.graph_global   (--seeds 3, --eps 5,10, --agents prbcd,coverage, --json)
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import advgym
from advgym import register_agent, registry
from advgym.core.victim import Victim
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.victims.recipes import GCN
from advgym.lib.fit import descend
from benchmarks._common import arguments, device_label, table

SETTINGS: dict[str, dict[str, Any]] = {}
LIMIT = {"coverage": 4_000}  # queries and gradients; prbcd ends by itself
Found = tuple[float, float, float, int, int]  # accuracy, CPU seconds of the attack, of all, queries, flips


class Full(nn.Module):
    """A model of ours as PyG calls one."""

    def __init__(self, model: GCN) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Scores of every node."""
        return self.model.full(x, edge_index, edge_weight)


def trained(data: NodeData, seed: int) -> GCN:
    """As the example trains it: the last of 200 epochs of Adam, weight decay on every parameter."""
    torch.manual_seed(seed)
    model = GCN(data.graph.features, data.classes, 16)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    x, edges, train = data.graph.inputs_x(), data.graph.edge_index(), data.nodes["train"]
    descend(model, lambda on: F.cross_entropy(model.full(x, edges)[on], data.labels[on]), [[train]] * 200, optimiser)
    return model.requires_grad_(requires_grad=False)


@torch.no_grad()
def accuracy(model: GCN, data: NodeData, flips: Tensor) -> float:
    """Percent of all test nodes right, by PyG's forward of the clean edges with `flips` int64 (E, 2) made."""
    size = data.graph.size
    clean, flipped = (set((p[:, 0] * size + p[:, 1]).tolist()) for p in (data.graph.pairs, flips))
    keys = torch.tensor(sorted(clean ^ flipped))
    pairs = torch.stack([keys // size, keys % size])
    scores = model.full(data.graph.inputs_x(), torch.cat([pairs, pairs.flip(0)], 1))
    test = data.nodes["test"]
    return 100 * float((scores[test].argmax(1) == data.labels[test]).float().mean())


def peer(model: GCN, data: NodeData, budget: int, seed: int) -> Found:
    """PyG's attack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "experimental code"
        from torch_geometric.contrib.nn import PRBCDAttack

    torch.manual_seed(seed)
    started = time.process_time()
    attack = PRBCDAttack(Full(model), block_size=250_000, lr=2_000, log=False)
    _, flips = attack.attack(
        data.graph.inputs_x(), data.graph.edge_index(), data.labels, budget, data.nodes["test"]
    )  # fmt: skip
    spent = time.process_time() - started
    flips = flips.T.sort(1).values.unique(dim=0)
    assert len(flips) <= budget
    return accuracy(model, data, flips), spent, spent, 0, len(flips)


def ours(name: str, model: GCN, data: NodeData, eps: float, budget: int, seed: int, device: str) -> Found:
    """An agent of ours, through the gym."""
    entry, limit, spent = registry.agent(name), LIMIT.get(name, 20_000), 0.0

    def timed(env: Any, *, seed: int = 0) -> None:
        nonlocal spent
        started = time.process_time()
        entry.attack(env, seed=seed, **SETTINGS.get(name, {}))
        spent = time.process_time() - started

    register_agent(f"{name}-timed", kind="edits", knowledge="white-box", proposals=entry.proposals)(timed)
    started = time.process_time()
    result = advgym.attack(
        "graph/cora-global", f"{name}-timed", episodes=1, seed=seed, device=device, eps=eps, victim=Victim(model),
        queries=limit, gradients=limit,
    )  # fmt: skip
    total = time.process_time() - started
    (row,) = result.samples
    assert row.valid and not [f for f in result.flags if "crashed" in f], result.flags
    flips = torch.tensor([edit[:2] for edit in row.perturbation["edits"]]).reshape(-1, 2)
    assert len(flips) <= budget
    return accuracy(model, data, flips), spent, total, row.queries, len(flips)


def main() -> None:
    args = arguments(__doc__, seeds=3, first=0, eps="5,10", agents="prbcd,coverage", peer=1)
    data, shares = load_nodes("cora"), [float(e) / 100 for e in args.eps.split(",")]
    names = [*(["PyG prbcd"] if args.peer else []), *args.agents.split(",")]
    found: dict[tuple[str, float], list[Found]] = {}
    clean = []
    for seed in range(args.first, args.first + args.seeds):
        model = trained(data, seed)
        clean.append(accuracy(model, data, torch.empty(0, 2, dtype=torch.int64)))
        for eps in shares:
            budget = int(eps * len(data.graph.pairs) + 1e-9)
            for name in names:
                if name == "PyG prbcd":
                    got = peer(model, data, budget, seed)
                else:
                    got = ours(name, model, data, eps, budget, seed, args.device)
                found.setdefault((name, eps), []).append(got)
                if not args.json:
                    print(f"  seed {seed}, {eps:.0%}, {name}: {got[0]:.1f}, {got[1]:.1f} s", flush=True)
    rows: list[list[object]] = [["none", "", spread(clean), "", "", "", ""]]
    for eps in shares:
        for name in names:
            value = found[name, eps]
            seconds, total = (statistics.mean(v[i] for v in value) for i in (1, 2))
            against = found.get(("PyG prbcd", eps))
            ratio = f"{statistics.mean(v[1] for v in against) / seconds:.1f}" if against else ""
            queries = statistics.mean(v[3] for v in value)
            asked = f"{queries:.0f}" if queries else ""
            rows.append(
                [name, f"{eps:.0%}", spread([v[0] for v in value]), f"{seconds:.1f}", f"{total:.1f}", ratio, asked]
            )
    title = f"Cora, PyG's example, accuracy of 1,000 test nodes, {args.seeds} seeds ({device_label(args.device)})"
    table(title, ["attack", "eps", "accuracy", "CPU s", "CPU s, all", "x faster", "queries"], rows, args.json)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.pstdev(values):.1f}"


if __name__ == "__main__":
    main()
