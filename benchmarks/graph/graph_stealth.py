"""Stealth constraints on Cora (Nettack's cora.npz, largest component): what Lambda says, and what the checks cost.

    python -m benchmarks.graph.graph_stealth

Needs ADVGYM_DATA. Every speed is against the plain way in the same run: Lambda from whole degree sequences, components
counted by networkx row by row (and by SciPy, all rows in one matrix).
"""

from __future__ import annotations

import networkx as nx
import torch

from advgym.envs.graph.constraints.components import component_count, components_grow, may_cut
from advgym.envs.graph.constraints.cooccurrence import Cooccurrence
from advgym.envs.graph.constraints.powerlaw import THRESHOLD, degree_test_of
from advgym.envs.graph.data.interchange import read_npz, to_networkx
from advgym.envs.graph.inputs.graphs import Graph
from advgym.lib.weights import data_dir
from benchmarks._common import arguments, device_label, race, table


def main() -> None:
    args = arguments(__doc__ or "", rows=256, flips=5, draws=50)
    root = data_dir()
    if root is None:
        raise SystemExit("set ADVGYM_DATA to the folder that holds graph/npz/cora.npz")
    size, pairs, x, _ = read_npz(root / "graph" / "npz" / "cora.npz", largest_component=True)
    assert x is not None
    graph, g = Graph(size, pairs, x).to(args.device), torch.Generator().manual_seed(0)
    test = degree_test_of(graph)

    def added(many: int, rows: int) -> torch.Tensor:
        draws = torch.randint(0, size, (rows, 2 * many + 8, 2), generator=g).to(args.device)
        keep = [p[(p[:, 0] != p[:, 1]) & ~graph.has(p[:, 0], p[:, 1])] for p in draws]
        return torch.stack([p.sort(1).values.unique(dim=0)[:many] for p in keep])

    lines = []
    for many in (5, 20, 51, 253):
        value = test.incremental(added(many, args.draws), graph)
        below = f"{float((value < THRESHOLD).double().mean()):.0%}"
        lines.append([many, *(f"{float(v):.3g}" for v in (value.mean(), value.min(), value.max())), below])
    table(f"Lambda of random added edges, {args.draws} draws", ["edges", "mean", "min", "max", "below 0.004"], lines,
          args.json)  # fmt: skip

    # Three of five flips are removals.
    flips = added(args.flips, args.rows)
    for row in flips:
        at = torch.randperm(len(graph.pairs), generator=g)[: (args.flips + 1) // 2]
        row[: len(at)] = graph.pairs[at.to(args.device)]
    state, targets = test.state(flips, graph), torch.randint(0, size, (args.rows, 1), generator=g).to(args.device)
    every = torch.arange(size, device=args.device).expand(args.rows, -1)
    candidates = torch.stack([targets.expand_as(every), every], 2)

    def scratch() -> torch.Tensor:
        degree = graph.count.repeat(len(flips), 1)
        sign = 1 - 2 * graph.has(flips[..., 0], flips[..., 1]).long()
        for end in (0, 1):
            degree.scatter_add_(1, flips[..., end], sign)
        return test.statistic(degree)

    assert float((scratch() - test.incremental(flips, graph)).abs().max()) < 1e-9
    clean = to_networkx(graph, x=False)

    def by_networkx() -> list[int]:
        out = []
        for row in flips.tolist():
            one = clean.copy()
            for a, b in row:
                (one.remove_edge if one.has_edge(a, b) else one.add_edge)(a, b)
            out.append(nx.number_connected_components(one))
        return out

    assert by_networkx() == component_count(graph, flips).tolist()
    seconds = race(
        {
            "incremental": lambda: test.incremental(flips, graph),
            "scratch": scratch,
            "after": lambda: test.after(state, candidates),
            "grow": lambda: components_grow(graph, flips),
            "count": lambda: component_count(graph, flips),
        },
        args.repeat, args.device,
    )  # fmt: skip
    plain = race({"networkx": by_networkx}, 1, "cpu")["networkx"]
    rows = args.rows
    each = {name: 1e6 * s / rows for name, s in seconds.items()}
    table(
        f"{rows} rows of {args.flips} flips, microseconds a row, {device_label(args.device)}",
        ["check", "us", "plain way", "plain us", "ratio"],
        [
            ["Lambda", f"{each['incremental']:.2f}", "from whole degrees", f"{each['scratch']:.1f}",
             f"{each['scratch'] / each['incremental']:.1f}x"],
            [f"Lambda after each of {size:,} candidates", f"{each['after']:.0f}", "from whole degrees, multiplied",
             f"{each['scratch'] * size:.0f}", f"{each['scratch'] * size / each['after']:.0f}x"],
            ["components grew?", f"{each['grow']:.1f}", "counted by networkx", f"{1e6 * plain / rows:.0f}",
             f"{1e6 * plain / rows / each['grow']:.0f}x"],
            ["components grew?", f"{each['grow']:.1f}", "counted by SciPy, all at once",
             f"{each['count']:.0f}", f"{each['count'] / each['grow']:.1f}x"],
        ],
        args.json,
    )  # fmt: skip
    cut = may_cut(graph, flips)
    built = race({"build": lambda: Cooccurrence(graph.x)}, args.repeat, args.device)["build"]
    words = Cooccurrence(graph.x)
    nodes = torch.arange(min(size, 256), device=args.device)
    asked = race({"allowed": lambda: words.allowed(nodes)}, args.repeat, args.device)["allowed"]
    table(
        "Beside them", ["what", "figure"],
        [
            ["rows whose components had to be counted", f"{float(cut.double().mean()):.0%}"],
            ["co-occurrence graph of 1,433 words, made once", f"{built:.2f} s, {len(words.words.pairs):,} pairs"],
            ["words that a node may be given", f"{1e3 * asked / len(nodes):.2f} ms a node"],
            ["of all absent words, allowed", f"{float(words.allowed(nodes)[graph.x[nodes] == 0].double().mean()):.1%}"],
        ],
        args.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
