"""The zoo on Cora: clean accuracy, seconds of training, receptive fields, a certificate. Attacks: graph_adaptive.py.

Needs ADVGYM_DATA; trained victims are kept in the cache, so the seconds of training are those of the first run.

Commands:
    python -m benchmarks.graph.graph_zoo                      clean accuracy and seconds of training
    python -m benchmarks.graph.graph_zoo --part ego           single-edge candidates, receptive fields and whole graphs
    python -m benchmarks.graph.graph_zoo --part sweep         gains of all pairs by models of edges, and the best rows
    python -m benchmarks.graph.graph_zoo --part certificate   certified share of nodes of a smoothed GCN
"""

from __future__ import annotations

import time

import torch

from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.inputs.edges import SWEPT, SweepTape
from advgym.envs.graph.inputs.ego import near_targets
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.propagation import whole_targets
from advgym.envs.graph.models.smoothing import Smoothed, certify
from advgym.envs.graph.victims.zoo import zoo_victim
from benchmarks._common import arguments, clock, table

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


def part_clean(options: object, found: dict[str, object]) -> None:
    rows = [[name, 100 * v.card["clean_accuracy"], v.card["fit_seconds"]] for name, v in found.items()]
    table("Cora, public split, 1000 test nodes", ["model", "clean %", "fit s"], rows, options.json)


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


def part_sweep(options: object, found: dict[str, object]) -> None:
    data, rows = load_nodes("cora"), []
    graph, nodes = data.graph, data.nodes["test"]
    none = torch.empty(1, 0, 2, dtype=torch.int64)
    for name, victim in found.items():
        gains, seconds = [], []
        for many in (graph.size**2, SWEPT):
            tape = SweepTape(seed=1, many=many)
            scores = victim.model(GlobalRows(graph, nodes, none, tape=tape))
            own = torch.nn.functional.one_hot(scores.argmax(1), data.classes).bool()
            margin = scores.masked_fill(own, -torch.inf).amax(1) - scores[own]
            torch.autograd.grad(torch.tanh(margin).mean(), tape.leaf)
            seconds.append(clock(lambda t=tape, to=gains: to.append(t.best(graph, 0))))
        best, some = (p[g.topk(1000).indices] @ torch.tensor([graph.size, 1]) for p, g in gains)
        share = float(gains[1][1].topk(1000).values.sum() / gains[0][1].topk(1000).values.sum())
        rows.append([name, *seconds, 100 * float(torch.isin(best, some).float().mean()), 100 * share])
    head = ["model", "all pairs s", f"{SWEPT} pairs s", "of the best 1000, %", "of their gain, %"]
    table(f"Cora, gains of {graph.size * (graph.size - 1) // 2} pairs, CPU s", head, rows, options.json)


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
        __doc__.splitlines()[0], part="clean", models="", nodes=50, draws=500,
    )  # fmt: skip
    names = {"ego": "gcn,sage,gin,gat", "certificate": "gcn", "sweep": "gat,gnnguard,rung,jaccard,pro-gnn"}.get(
        options.part, ""
    )
    parts = {"clean": part_clean, "ego": part_ego, "sweep": part_sweep, "certificate": part_certificate}
    if options.part not in parts:
        raise SystemExit(f"--part is one of {', '.join(parts)}, not {options.part!r}")
    parts[options.part](options, victims(options.models or names))


if __name__ == "__main__":
    main()
