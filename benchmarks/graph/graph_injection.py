"""Node injection against several models: which share of the members turns, white-box and by transfer from the GCN.

`cora-inject` puts 60 nodes of at most 20 edges and 18 words into Cora. `blocks` are five drawn block models with 10 new
nodes of 5 edges, none of them `sbm` or one that anything was chosen on; figures are means ± standard deviations over
them. Members are the test nodes that the model has right. `random` draws edges to members and features at random, full
budgets, the best of `tries` draws by the objective; `fgsm-injection` tries as many draws of edges, `tdgia` is as it
comes.
Under "transfer" the perturbation is found on the GCN (as a surrogate) and counted on the model.

Command: python -m benchmarks.graph.graph_injection   (--data blocks,cora, --models gcn,sage, --json)
Cora needs ADVGYM_DATA.
"""

from __future__ import annotations

import statistics
import time
from functools import cache
from typing import Any

import torch
from torch import Tensor

from advgym import make, registry
from advgym.agents.shared.common import fitness
from advgym.agents.shared.injecting import joined, plan_of
from advgym.core.task import load_victim
from advgym.envs.graph.data.datasets import sbm
from advgym.envs.graph.victims.recipes import node_victim
from advgym.envs.graph.victims.zoo import zoo_victim
from benchmarks._common import arguments, device_label, table

AGENTS = ("random", "fgsm-injection", "tdgia")
BLOCKS = range(201, 206)  # seeds of the drawn block models
BUDGET = 1000


def main() -> None:
    args = arguments(__doc__, data="blocks,cora", models="gcn,sage,appnp,rgcn", tries=5)
    for data in args.data.split(","):
        rows = []
        for model in args.models.split(","):
            for knowledge in ("white-box", "transfer"):
                if knowledge == "transfer" and model == "gcn":
                    continue
                row: list[object] = [model, knowledge]
                for agent in AGENTS:
                    spent = time.process_time()
                    seeds = BLOCKS if data == "blocks" else (None,)
                    rates = [rate(data, seed, model, agent, knowledge, args.tries, args.device) for seed in seeds]
                    spent = (time.process_time() - spent) / len(rates)
                    spread = f" ± {statistics.stdev(rates):.1f}" if len(rates) > 1 else ""
                    row += [f"{statistics.mean(rates):.1f}{spread}", f"{spent:.1f}"]
                rows.append(row)
                print(*row, sep=" | ", flush=True)
        head = ["model", "knowledge", *(w for a in AGENTS for w in (f"{a}, members %", "CPU s"))]
        table(f"injection, {data} ({device_label(args.device)})", head, rows, args.json)


@cache
def parts(data: str, seed: int | None, model: str) -> tuple[str, dict[str, Any]]:
    """A task's name and its victim; for a block model its graph too."""
    if seed is None:
        return f"graph/{data}-inject", {"victim": load_victim(f"{data}-{model}")}
    drawn = sbm(seed=seed)
    made = node_victim if model == "gcn" else zoo_victim
    return "graph/sbm-inject", {"samples": drawn, "victim": made(f"block-{seed}-{model}", model=model, data=drawn)}


def rate(
    data: str, seed: int | None, model: str, agent: str, knowledge: str, tries: int, device: str
) -> float:  # fmt: skip
    """Members of one graph that turn, in percent."""
    name, own = parts(data, seed, model)
    budget: dict[str, Any] = {"device": device, "queries": BUDGET, "gradients": BUDGET}
    env = make(name, 1, **own, **budget, knowledge=knowledge, surrogate=parts(data, seed, "gcn")[1]["victim"])
    env.reset(seed=0)
    if agent == "random":
        found = drawn(env, tries)
    else:
        settings = {"tries": tries} if agent == "fgsm-injection" else {}
        found = registry.agent(agent).attack(env, seed=0, **settings)
    judge = make(name, 1, **own, **budget)  # the answer of the model itself, whoever was asked before
    obs, _ = judge.reset(seed=0)
    clean = obs["output"].clone()
    return 100 * float((judge.step(found)[0]["output"] != clean).float().mean())


def drawn(env: Any, tries: int) -> Tensor:
    """Edges to random members and random features, full budgets: the best of the draws."""
    obs, _ = env.reset(seed=0)
    plan, draws, best = plan_of(env, obs), env.draws(0), env.threat.null()
    assert plan is not None
    value = torch.full((1,), -torch.inf, device=best.device)
    words = int(env.table.choice_mask(torch.tensor([plan.many], device=best.device)).sum())
    for _ in range(tries):
        order = draws.uniform(plan.members.shape[1]).argsort(1)
        word = draws.uniform(plan.many, words).argsort(2)[..., : plan.features]
        site = torch.arange(plan.many, 2 * plan.many, device=best.device).view(1, -1, 1).expand_as(word)
        cells = torch.stack([site, word], 3).flatten(1, 2)
        state = env.threat.project(joined(env, plan.deal(order, 0, plan.many), cells))
        obs, *_ = env.step(state)
        now = fitness(obs)
        best, value = torch.where((now > value).view(-1, 1, 1), state, best), torch.maximum(now, value)
    return best


if __name__ == "__main__":
    main()
