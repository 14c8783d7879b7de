"""Global attacks on Cora-ML in the inductive protocol of EvA (2026): DICE, PRBCD, EvA and our own coverage search.

Protocol: the largest component (2,810 nodes), 20 nodes a class train and 20 validate, a stratified tenth (281 nodes) is
attacked, a GCN of 64 hidden units has been trained on the graph without that tenth. The budget is eps x the undirected
edges with an end in the tenth. An attack is told that nodes the victim has right are to be turned; figures are the
accuracy of all 281 against the truth, in percent, after the flips that the verifier accepted were applied to the clean
graph again: mean and standard deviation over splits. Queries are graphs answered, CPU seconds those of the agent alone.
`--queries` is what every agent may spend but `coverage`, which may spend `--own`, as many as `prbcd` takes. "eva-plain"
is `eva` without its memory. Splits and victims differ in how much there is to lose: a column says how many times the
damage of `prbcd` (clean accuracy less attacked, means over splits) each attack does, where `prbcd` runs too.

What was tuned was tuned on split 100: `coverage` as a whole, at 5 %; EvA's mutations (0.5 to 7 a child), rivals (3 to
12) and focus (0 to 1), at 10 %, without its memory; the rates and steps by which the memory learns, on random sets, and
the share of a set that it exchanges at once (0.1, 0.3), at 10 %; PRBCD's epochs (125, 400). The victim's weight decay
and epochs were chosen by validation accuracy on splits 100 and 101. The published figures come from other splits,
victims and random numbers: read them beside those of the same attack here. Their clean accuracy is not in the notes;
DICE at 1 % leaves 80.9, which the published damages are counted from. Needs ADVGYM_DATA.

Command: nice python -m benchmarks.graph.graph_evolution   (--splits 2, --first 0, --queries 20000, --own 1221,
--eps 5,10, --agents prbcd,eva,coverage, --json)
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor

from advgym import make_task, registry
from advgym.core import rng
from advgym.envs.graph.data.cora_ml import load
from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.victims.inductive import inductive_victim
from advgym.judge.play import play
from benchmarks._common import arguments, device_label, table

SETTINGS: dict[str, dict[str, Any]] = {"prbcd": {"epochs": 400}}
KNOWLEDGE = {"eva": "score", "eva-plain": "score"}  # it plays with outputs alone too, and worse
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {"eva-plain": ("eva", {"memory": False})}
PAPER = {
    "dice": "80.8 / 80.6",
    "prbcd": "66.5 / 58.5",
    "eva": "53.0 / 42.0",
}  # EvA, Table 1, as two notes on it give it
PAPER_DAMAGE = {"dice": "0.0 / 0.0", "prbcd": "1.0 / 1.0", "eva": "1.9 / 1.7"}  # times PRBCD's


@torch.no_grad()
def accuracy(data: NodeData, victim: Any, flips: Tensor) -> float:
    """Percent of all test nodes whose true label is answered once `flips` int64 (E, 2) are made."""
    test = data.nodes["test"]
    scores = victim(GlobalRows(data.graph, test, flips.unsqueeze(0)))
    return 100 * float((scores.argmax(1) == data.labels[test]).float().mean())


def dice(data: NodeData, budget: int, seed: int) -> Tensor:
    """Half edges between equal labels that go, half new ones between different labels, one end in the test set."""
    graph, test, labels = data.graph, data.nodes["test"], data.labels
    pairs = graph.pairs[torch.isin(graph.pairs, test).any(1) & (labels[graph.pairs[:, 0]] == labels[graph.pairs[:, 1]])]
    gone = pairs[rng.bits(seed, torch.arange(len(pairs)), stream=47).argsort()[: budget // 2]]
    u = rng.bits(seed, torch.arange(8 * budget), (2,), 48)
    new = torch.stack([test[u[:, 0] % len(test)], u[:, 1] % graph.size], 1).sort(1).values.unique(dim=0)
    fits = (labels[new[:, 0]] != labels[new[:, 1]]) & ~graph.has(new[:, 0], new[:, 1])
    new = new[fits]
    return torch.cat([gone, new[rng.bits(seed, torch.arange(len(new)), stream=49).argsort()[: budget - len(gone)]]])


def task_of(data: NodeData, victim: Any, share: float, queries: int, knowledge: str) -> tuple[Any, int]:
    """The task and its budget in flips: a share of all edges of the test set, of which members are a part."""
    test = data.nodes["test"]
    budget = int(share * int(torch.isin(data.graph.pairs, test).any(1).sum()) + 1e-9)
    task = make_task(
        "graph/cora-global", samples=data, victim=victim, of="all", eps=(budget + 0.5) / len(data.graph.pairs),
        queries=queries, gradients=queries, knowledge=knowledge,
    )  # fmt: skip
    return task, budget


def attacked(name: str, data: NodeData, victim: Any, share: float, args: Any) -> tuple[float, int, int, float, int]:
    """(accuracy, queries, gradients, CPU seconds, flips) of one agent on one split."""
    agent, settings = VARIANTS.get(name, (name, SETTINGS.get(name, {})))
    entry = registry.agent(agent)
    told = KNOWLEDGE.get(name, entry.knowledge)
    task, budget = task_of(data, victim, share, args.own if name == "coverage" else args.queries, told)
    spent = 0.0

    def timed(env: Any, **settings: Any) -> None:
        nonlocal spent
        started = time.process_time()
        entry.attack(env, **settings)
        spent = time.process_time() - started

    clocked = registry.Agent(name, timed, entry.kinds, told, entry.proposals, entry.origin, "")
    (row,), error = play(task, clocked, [0], args.device, 0, "test", settings)
    assert not error and row.valid, error
    flips = torch.tensor([edit[:2] for edit in row.perturbation["edits"]]).reshape(-1, 2)
    assert len(flips) <= budget
    return accuracy(data, victim, flips), row.queries, row.gradients, spent, len(flips)


def main() -> None:
    args = arguments(__doc__, splits=2, first=0, queries=20_000, own=1221, eps="5,10", agents="prbcd,eva,coverage")
    names, shares = ["dice", *args.agents.split(",")], [float(e) / 100 for e in args.eps.split(",")]
    found: dict[tuple[str, float], list[tuple[float, int, int, float, int]]] = {}
    clean = []
    for nth in range(args.first, args.first + args.splits):
        data = load(f"cora-ml#{nth}")
        victim = inductive_victim(f"cora-ml-gcn-{nth}", f"cora-ml#{nth}")
        clean.append(accuracy(data, victim, torch.empty(0, 2, dtype=torch.int64)))
        for share in shares:
            for name in names:
                if name == "dice":
                    budget = task_of(data, victim, share, 10, "score")[1]
                    got = (accuracy(data, victim, dice(data, budget, 0)), 0, 0, 0.0, budget)
                else:
                    got = attacked(name, data, victim, share, args)
                found.setdefault((name, share), []).append(got)
                if not args.json:
                    print(f"  split {nth}, {share:.0%}, {name}: {got[0]:.1f} ({got[1]} queries)", flush=True)
    rows: list[list[object]] = [["none", *[spread(clean) for _ in shares], *6 * [""]]]
    for name in names:
        cells = [spread([a for a, *_ in found[name, share]]) for share in shares]
        means = [" / ".join(f"{statistics.mean(r[i] for r in found[name, s]):.0f}" for s in shares) for i in (1, 2, 3)]
        pairs = [[[a for a, *_ in found.get((n, share), [])] for n in (name, "prbcd")] for share in shares]
        damage = " / ".join(times(clean, *pair) for pair in pairs if pair[1])
        rows.append([name, *cells, *means, damage, PAPER.get(name, ""), PAPER_DAMAGE.get(name, "")])
    title = f"Cora-ML, inductive GCN, accuracy of 281 test nodes, {args.splits} splits ({device_label(args.device)})"
    head = ["attack", *[f"{s:.0%}" for s in shares], "queries", "gradients", "CPU s", "damage", "published", "damage"]
    table(title, head, rows, args.json)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.pstdev(values):.1f}"


def times(clean: list[float], values: list[float], others: list[float]) -> str:
    """How many times the others' damage an attack does, of means."""
    return f"{(sum(clean) - sum(values)) / (sum(clean) - sum(others)):.2f}"


if __name__ == "__main__":
    main()
