"""The zoo on Cora: clean accuracy, seconds of training, accuracy under attacks through each model; receptive fields.

Needs ADVGYM_DATA; trained victims are kept in the cache, so the seconds of training are those of the first run.

Commands:
    python benchmarks/graph_zoo.py                      clean accuracy and seconds of training
    python benchmarks/graph_zoo.py --part attack        accuracy under a global first-order attack through each defense
    python benchmarks/graph_zoo.py --part ego           single-edge candidates on receptive fields and on whole graphs
    python benchmarks/graph_zoo.py --part certificate   certified share of nodes of a smoothed GCN
"""

from __future__ import annotations

import time

import torch
from _common import arguments, clock, table
from torch import Tensor

from advgym.envs.graph.adjacency import Adjacency, Tape
from advgym.envs.graph.data import NodeData, load_nodes
from advgym.envs.graph.edges import BlockTape
from advgym.envs.graph.ego import near_targets
from advgym.envs.graph.features import Features
from advgym.envs.graph.pairs import top_pairs
from advgym.envs.graph.propagation import whole_targets
from advgym.envs.graph.rows import GraphRows
from advgym.envs.graph.zoo import zoo_victim
from advgym.envs.graph.zoo.fitting import accuracy
from advgym.envs.graph.zoo.smoothing import Smoothed, certify

ZOO = (
    "gcn", "sage", "gin", "gat", "appnp", "rgcn", "gnnguard", "rung", "jaccard", "svd", "soft-median", "pro-gnn", "mlp",
)  # fmt: skip


def victims(names: str) -> dict[str, object]:
    chosen = names.split(",") if names else [*ZOO, "gcn+adversarial"]
    return {
        name: zoo_victim(
            f"cora-{name}", dataset="cora", model=name.split("+")[0], adversarial=name.endswith("+adversarial")
        )
        for name in chosen
    }


def greedy(model: torch.nn.Module, data: NodeData, budget: int, rounds: int, block: int, seed: int) -> Tensor:
    """Flips (1, budget, 2) against the test nodes, the best of all pairs (or of a random block) round by round.

    The loss is the cross-entropy of nodes that keep their clean class (Geisler et al., 2021); no test label is read.
    """
    graph, nodes = data.graph, data.nodes["test"]
    generator = torch.Generator().manual_seed(seed)
    flips = torch.empty(1, 0, 2, dtype=torch.int64)
    with torch.no_grad():
        own = torch.nn.functional.one_hot(model.full(graph)[nodes].argmax(1), data.classes).bool()
    for left in range(rounds, 0, -1):
        k = -(-(budget - flips.shape[1]) // left)
        listed = getattr(model, "listed", False)
        if listed:
            pairs = torch.randint(graph.size, (block, 2), generator=generator)
            pairs = torch.cat([graph.pairs, pairs[pairs[:, 0] != pairs[:, 1]]]).sort(1).values.unique(dim=0)
        tape = BlockTape(pairs) if listed else Tape()
        scores = model.scores(Adjacency(graph, flips, tape=tape), Features(graph, 1)).squeeze(1)[nodes]
        logits = torch.log_softmax(scores, 1)
        margin = logits.masked_fill(own, -torch.inf).amax(1) - logits[own]
        torch.autograd.grad(-logits[own][margin < 0].sum(), tape.leaf)
        with torch.no_grad():
            if listed:
                taken = torch.isin(pairs[:, 0] * graph.size + pairs[:, 1], flips[0, :, 0] * graph.size + flips[0, :, 1])
                best = pairs[tape.gains(graph, 0).masked_fill(taken, -torch.inf).topk(k).indices]
            else:
                best = top_pairs(graph, *tape.factors(0), k, closed=flips[0])[0]
        flips = torch.cat([flips, best.unsqueeze(0)], 1)
    return flips


def part_clean(options: object, found: dict[str, object]) -> None:
    rows = [[name, 100 * v.card["clean_accuracy"], v.card["fit_seconds"]] for name, v in found.items()]
    table("Cora, public split, 1000 test nodes", ["model", "clean %", "fit s"], rows, options.json)


def part_attack(options: object, found: dict[str, object]) -> None:
    data, rows = load_nodes("cora"), []
    shares = [float(v) for v in options.shares.split(",")]
    transfer = {}
    for name, victim in found.items():
        model, started = victim.model, time.process_time()
        out = [100 * accuracy(model, data, "test")]
        for share in shares:
            budget = round(share * len(data.graph.pairs))
            flips = greedy(model, data, budget, options.rounds, options.block, options.seed)
            out.append(100 * accuracy(model, data, "test", flips))
            if name == "gcn":
                transfer[share] = flips
        seconds = time.process_time() - started
        out += [100 * accuracy(model, data, "test", flips) for flips in transfer.values()]
        rows.append([name, *out, seconds])
    head = ["model", "clean %", *[f"own {s:.0%}" for s in shares], *[f"gcn's {s:.0%}" for s in transfer], "attack s"]
    table(f"Cora, accuracy under edge flips (share of edges), {options.rounds} rounds", head, rows, options.json)


def part_ego(options: object, found: dict[str, object]) -> None:
    data = load_nodes("cora")
    graph, rows = data.graph, []
    generator = torch.Generator().manual_seed(0)
    target = data.nodes["test"][:20].repeat_interleave(50)
    other = torch.randint(graph.size - 1, (len(target),), generator=generator)
    other = other + (other >= target)
    batch = GraphRows(graph, target, torch.stack([target, other], 1).unsqueeze(1))
    few = batch.take(torch.randperm(len(batch), generator=generator)[:40])
    for name, victim in found.items():
        model = victim.model
        if not 0 < model.hops < 4 or name == "mlp":
            continue
        with torch.no_grad():
            near_targets(model, few)
            ours = min(clock(lambda m=model: near_targets(m, batch)) for _ in range(3)) / len(batch)
            whole = min(clock(lambda m=model: whole_targets(m, few)) for _ in range(3)) / len(few)
            worst = float((near_targets(model, few) - whole_targets(model, few)).abs().max())
        rows.append([name, ours * 1e3, whole * 1e3, whole / ours, worst])
    head = ["model", "fields ms", "whole ms", "ratio", "max |score diff|"]
    table(f"Cora, {len(batch)} single-edge candidates, CPU ms each", head, rows, options.json)


def part_certificate(options: object, found: dict[str, object]) -> None:
    data, rows = load_nodes("cora"), []
    test = data.nodes["test"][:: max(1, 1000 // options.nodes)]
    batch = GraphRows(data.graph, test, torch.empty(len(test), 0, 2, dtype=torch.int64))
    for p_add, p_del, over in ((0.001, 0.6, "own"), (0.002, 0.8, "own"), (0.01, 0.6, "cells")):
        model = Smoothed(found["gcn"].model, p_add=p_add, p_del=p_del, over=over)
        started = time.process_time()
        cert = certify(model, batch, pick=50, draws=options.draws, alpha=0.001)
        right = cert.label == data.labels[test]
        shares = [
            100 * float((right & cert.radius[:, a, d]).float().mean()) for a, d in ((0, 0), (1, 0), (0, 1), (0, 4))
        ]
        rows.append([over, p_add, p_del, *shares, time.process_time() - started])
    head = ["over", "p_add", "p_del", "right %", "(1, 0)", "(0, 1)", "(0, 4)", "s"]
    title = f"Cora, {len(test)} test nodes, {options.draws} draws: right and certified against (r_add, r_del), %"
    table(title, head, rows, options.json)


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0], part="clean", models="", shares="0.01,0.05", rounds=50, block=100_000, seed=0,
        nodes=50, draws=500,
    )  # fmt: skip
    names = {"ego": "gcn,sage,gin,gat", "certificate": "gcn"}.get(options.part, "")
    parts = {"clean": part_clean, "attack": part_attack, "ego": part_ego, "certificate": part_certificate}
    if options.part not in parts:
        raise SystemExit(f"--part is one of {', '.join(parts)}, not {options.part!r}")
    parts[options.part](options, victims(options.models or names))


if __name__ == "__main__":
    main()
