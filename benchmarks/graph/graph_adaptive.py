"""Each victim of the zoo on Cora under attacks that see it: clean, under transferred flips, under its own, targeted.

Public split, the accuracy of all 1,000 test nodes in per cent. "transfer": flips that `prbcd` (125 epochs) found
through the GCN of the same seed. "adaptive": `prbcd` through the victim itself, `--epochs` gradients from the
transferred flips on, which it tries first. Both through the gym (`graph/cora-global`), against the nodes that its model
has right. The last columns are of `graph/cora-edge`: `--targets` test nodes, 5 edges each, the share of those that the
victim has right that turn: under the flips that `first-order` found through the GCN, and under its own. CPU seconds are
those of the attack through the victim, with everything the gym does besides. Nothing of an attack was tuned per victim.
Needs ADVGYM_DATA; trained victims are kept in the cache.

Command: nice python -m benchmarks.graph.graph_adaptive (--models gcn,svd --seeds 3 --eps 5,10 --targets 20 ...)
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor

import advgym
from advgym.core.victim import Victim
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.models.fitting import accuracy
from advgym.envs.graph.victims.zoo import zoo_victim
from benchmarks._common import arguments, device_label, table

ZOO = (
    "gcn", "sage", "gin", "gat", "appnp", "rgcn", "gnnguard", "rung", "jaccard", "svd", "pro-gnn", "soft-median",
    "gcn+adversarial",
)  # fmt: skip
LIMIT = 20_000  # queries and gradients of a global attack: more than any here asks for
EDGES = 5


def victim(name: str, seed: int) -> Victim:
    """One of ZOO on Cora; seed 0 is the victim that tasks name."""
    model, _, robust = name.partition("+")
    return zoo_victim(f"cora-{name}", dataset="cora", model=model, adversarial=bool(robust), seed=seed)


def flips_against(found: Victim, eps: float, **settings: Any) -> tuple[Tensor, float]:
    """Flips int64 (1, E, 2) that prbcd finds through a victim, and CPU seconds."""
    started = time.process_time()
    result = advgym.attack(
        "graph/cora-global", "prbcd", episodes=1, settings=settings, eps=eps, victim=found, queries=LIMIT,
        gradients=LIMIT,
    )  # fmt: skip
    (row,) = result.samples
    assert row.valid and not [f for f in result.flags if "crashed" in f], result.flags
    return torch.tensor([e[:2] for e in row.perturbation["edits"]]).reshape(1, -1, 2), time.process_time() - started


def targeted(found: Victim, surrogate: Victim, many: int) -> tuple[float, float, float]:
    """Shares of test nodes that turn by 5 edges, in per cent: by transfer, by the victim's own; CPU seconds of that."""
    options = {"episodes": many, "victim": found, "edits": EDGES}
    moved = advgym.attack("graph/cora-edge", "transfer", surrogate=surrogate, **options)
    started = time.process_time()
    own = advgym.attack("graph/cora-edge", "first-order", **options)
    return 100 * moved.success_rate, 100 * own.success_rate, time.process_time() - started


def line(name: str, seed: int, data: NodeData, shares: list[float], options: Any, held: dict[Any, Tensor]) -> list:
    """[clean, (transfer, adaptive, CPU s) of every share, targeted transfer, targeted, CPU s]."""
    found, gcn = victim(name, seed), victim("gcn", seed)
    out = [100 * accuracy(found.model, data, "test")]
    for eps in shares:
        if (seed, eps) not in held:
            held[seed, eps] = flips_against(gcn, eps)[0]
        moved = held[seed, eps]
        own, seconds = flips_against(found, eps, epochs=options.epochs, start=moved[0].tolist())
        out += [100 * accuracy(found.model, data, "test", flips) for flips in (moved, own)] + [seconds]
    return out + (list(targeted(found, gcn, options.targets)) if options.targets else [])


def main() -> None:
    options = arguments(
        __doc__, models=",".join(ZOO), seeds=1, first=0, eps="5", targets=20, epochs=60
    )  # fmt: skip
    data, shares = load_nodes("cora"), [float(v) / 100 for v in options.eps.split(",")]
    rows: list[list[object]] = []
    held: dict[Any, Tensor] = {}
    for name in options.models.split(","):
        lines = []
        for seed in range(options.first, options.first + options.seeds):
            lines.append(line(name, seed, data, shares, options, held))
            if not options.json:
                print(f"  {name}, seed {seed}: {' '.join(f'{v:.1f}' for v in lines[-1])}", flush=True)
        rows.append([name, *map(spread, zip(*lines, strict=True))])
    head = ["model", "clean"]
    for eps in shares:
        head += [f"transfer {eps:.0%}", f"adaptive {eps:.0%}", "CPU s"]
    if options.targets:
        head += ["targeted, transfer", "targeted", "CPU s"]
    title = f"Cora, {options.seeds} seed(s), prbcd of {options.epochs} epochs ({device_label(options.device)})"
    table(title, head, rows, options.json)


def spread(values: tuple[float, ...]) -> str:
    """Mean, and standard deviation of several."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.pstdev(values):.1f}"


if __name__ == "__main__":
    main()
