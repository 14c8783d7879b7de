"""Attacks on generated graphs of growing size: seconds and memory of a targeted attack and of one global step.

A targeted attack on 100 nodes at once (`first-order`, 5 edges each) and one first-order step over *all* pairs of the
graph (`env.rank` of a global task: one forward, one backward, the best 1,000 of all N (N - 1) / 2 flips). The largest
graph has ogbn-arxiv's size. Goals there: 60 s for the 100 targets; 8 GB for the step.

Command: python -m benchmarks.graph.graph_scale [--plot docs/images/graph-scale.png]
"""

from __future__ import annotations

import logging
import resource
import time

import advgym
from advgym.envs.graph.data.synthetic import sparse_sbm
from advgym.envs.graph.victims.recipes import node_victim
from benchmarks._common import arguments, device_label, table

SIZES = ((1_000, 7_000), (10_000, 71_000), (50_000, 355_000), (169_000, 1_200_000))


def main() -> None:
    args = arguments(__doc__, targets=100, edits=5, plot="", epochs=30, sizes=len(SIZES))
    logging.getLogger("advgym").setLevel(logging.ERROR)
    rows = []
    for size, edges in SIZES[: args.sizes]:
        data = sparse_sbm(size, edges)
        victim = node_victim(f"sbm-{size}", data=data, epochs=args.epochs)
        start = time.perf_counter()
        result = advgym.attack(
            "graph/edge", "first-order", samples=data, victim=victim, episodes=args.targets, lanes=args.targets,
            edits=args.edits, queries=500, gradients=500, device=args.device,
            settings={"exchange": False, "classes": False},
        )  # fmt: skip
        targeted = time.perf_counter() - start
        env = advgym.make("graph/global", samples=data, victim=victim, lanes=1, eps=0.01, device=args.device)
        env.reset(seed=0)
        start = time.perf_counter()
        env.rank(env.threat.null(), k=1000)
        step = time.perf_counter() - start
        pairs = size * (size - 1) / 2
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append([
            size, edges, victim.card["clean_accuracy"], result.attacked, result.success_rate, targeted, step,
            step / pairs * 1e9, peak,
        ])  # fmt: skip
        print(f"{size} nodes: {targeted:.1f} s, {step:.2f} s, {peak:.2f} GB", flush=True)
    head = ["nodes", "edges", "clean", "targets", "success", "targeted s", "all pairs s", "ns a pair", "peak GB"]
    print(device_label(args.device))
    table("graphs of growing size", head, rows)
    if args.plot:
        plot(rows, args.plot)


def plot(rows: list[list[float]], path: str) -> None:
    """Seconds against nodes, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4))
    size = [row[0] for row in rows]
    axes.loglog(size, [row[6] for row in rows], "o-", color="#0072b2", label="one step over all pairs")
    axes.loglog(size, [row[5] for row in rows], "s-", color="#d55e00", label="100 targets, 5 edges each")
    axes.set(xlabel="nodes", ylabel="seconds on one core")
    axes.grid(True, which="both", color="#dddddd", linewidth=0.5)
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
