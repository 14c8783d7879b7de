"""RL-S2V: Q-learning on graphs, an edge as two picks of nodes (Dai et al. 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import torch

from advgym import register_agent, registry
from advgym.agents.shared.common import choose, clean_fitness, fitness
from advgym.agents.shared.once import once
from advgym.agents.shared.played import content_of
from advgym.agents.shared.s2v_net import S2V, Scene, lane_features, open_first, open_second, q_learning
from advgym.agents.shared.targets import offer
from advgym.errors import AdvgymError, DataError
from advgym.ids import gym_id
from advgym.lib.weights import load_or_train, load_weights

SHIPPED = Path(__file__).parents[1] / "weights"
TASK = "graph/sbm-edge"
FIXED = ("knowledge", "queries", "gradients")  # options that training sets by itself


@register_agent("rl-s2v", kind="edits", knowledge="score", needs=("edges", "target"))
def attack(env, *, weights="", seed=0):
    """A learned policy flips edge after edge, each as two picks of nodes by their Q-values (Dai et al. 2018).

    It reads the public graph, its features and known labels, and the victim's answers; it asks about its own moves
    alone. Queries that are left after a full set start another from clean, without the first edges tried before.

    Args:
        env: Edits that flip edges around one node.
        weights: a safetensors file from `advgym train rl-s2v --task TASK`; "" for the one that ships, which learned on
            the training half of the karate club and on block models other than `sbm`.
        seed: unused beyond the reset, the policy is greedy.
    """
    obs, _ = env.reset(seed=seed)
    env = once(env)
    obs = {k: v[:, 0] if env.proposals is not None and k in ("scores", "output", "objective", "surrogate") else v
           for k, v in obs.items()}  # fmt: skip
    scene = Scene.of(env, obs)
    net = read(weights or SHIPPED / f"rl-s2v-{TASK.replace('/', '-')}.safetensors").to(scene.target.device)
    limit, most = env.table.limit, int(env.table.limit.max())
    best, held = clean_fitness(obs), env.threat.null()
    tried = torch.zeros(scene.fixed.shape[:2], dtype=torch.bool, device=scene.target.device)
    while not env.done and not bool(tried.all()):
        state, objective = env.threat.null(), scene.start
        for nth in range(most):
            if env.done:
                break
            edit, tried = _next(net, env, scene, state, objective, limit, tried, opening=nth == 0)
            state = choose((edit[:, 0] >= 0) & (nth < limit), env.threat.compose(state, edit), state)
            obs = offer(env, state)
            answer = {k: v if env.proposals is None else v[:, 0] for k, v in obs.items()
                      if k in ("evaluated", "valid", "objective", "surrogate")}  # fmt: skip
            objective = torch.where(answer["evaluated"], answer["objective"].detach(), objective)
            value = fitness(answer)
            better = value > best
            held, best = choose(better, state, held), torch.where(better, value, best)
        if env.knowledge == "transfer":  # the first set is what it has learned; nothing says when to stop
            break
    return held


@torch.no_grad()
def _next(net, env, scene, state, objective, limit, tried, *, opening: bool):
    """(the next edge (lanes, 2), which opening picks have been tried); -1 where none is open."""
    lane = lane_features(scene, objective, state, limit)
    mu, f = net.embed(scene, state)
    q, able = net.q_first(scene, mu, lane), open_first(env, scene)
    first = q.masked_fill(~able, -torch.inf).argmax(1)
    able = open_second(scene, state, first) & able.any(1, keepdim=True)
    if opening:
        able &= ~tried
    q = net.q_second(scene, mu, f, lane, first).masked_fill(~able, -torch.inf)
    # What the threat model refuses (a node left without edges) is passed over.
    top, at = q.topk(min(8, q.shape[1]), 1)
    edits = scene.graph.pair(first.unsqueeze(1), at)
    wide = env.threat.compose(state.unsqueeze(1).expand(-1, at.shape[1], -1, -1), edits)
    good = env.threat.check(wide) & top.isfinite()
    pick = good.to(torch.int8).argmax(1, keepdim=True)
    second = torch.where(good.any(1), at.gather(1, pick).squeeze(1), -1)
    if opening:
        tried = tried.scatter(1, at[:, :1], True).scatter(1, second.clamp_min(0).unsqueeze(1), True)
    return scene.graph.pair(first, second), tried


def train(
    task: str = TASK, *, also: str = "graph/karate-edge", graphs: int = 6, rounds: int = 420, lanes: int = 48,
    lr: float = 3e-3, seed: int = 0, **options: Any,
) -> tuple[S2V, dict[str, Any]]:  # fmt: skip
    """A policy for a task of edges, and its card: shipped, from the cache, or trained now through the edit view.

    What is kept is of the graphs and the victims that it was trained on, whatever the tasks are called.

    Args:
        task: of edge flips around one node. Where its graphs come from a generator, `graphs` others are drawn, each
            with a victim of its own; else its training split is played.
        also: a second such task, played on its training split; "" for none.
        graphs: drawn.
        rounds: episodes of all lanes, each of as many edges as the task allows.
        lanes: at once.
        lr: learning rate, falling to a twentieth.
        seed: of everything.
        options: of `task`, as `advgym.make` takes them: victim, samples, the threat model. Its training split is
            played then, whatever its data come from.
    """
    recipe = {"task": task, "also": also, "graphs": graphs, "rounds": rounds, "lanes": lanes, "lr": lr, "seed": seed}
    _edits(task)
    content = [*content_of(task, options, FIXED).values(), *(content_of(also, {}).values() if also else ())]
    if content:
        recipe["content"] = content

    def learn(net: torch.nn.Module) -> dict[str, Any]:
        totals: list[float] = []
        assert isinstance(net, S2V)
        views = _views(task, graphs, lanes, **options) + (_views(also, graphs, lanes) if also else [])
        q_learning(net, views, rounds=rounds, lr=lr, seed=seed, tell=lambda _, mean: totals.append(mean))
        some = max(len(views), len(totals) // 10)
        return {"first_return": sum(totals[:some]) / some, "return": sum(totals[-some:]) / some}

    name = f"rl-s2v-{task.replace('/', '-')}"
    net, card = load_or_train(name, S2V, learn, recipe=recipe, shipped=SHIPPED / f"{name}.safetensors")
    assert isinstance(net, S2V)
    return net, card


def _edits(task: str) -> int:
    """The most edges of an episode, by the task's row."""
    edits = registry.task_row(task)[1].get("constraint", {}).get("edits")
    if edits is None:
        raise AdvgymError(f"task {task!r} flips no edges around a node: `rl-s2v` learns on tasks such as {TASK!r}")
    return int(edits)


def _views(task: str, graphs: int, lanes: int, **options: Any) -> list[Any]:
    """Edit views to learn on: other graphs of the task's generator, or its training split."""
    row, edits = registry.task_row(task)[1], int(options.get("edits", _edits(task)))
    threat = {"knowledge": "score", "queries": edits}
    if options or not row.get("generator"):
        return [_view(task, lanes, split="train", **threat, **options)]
    drawn = [f"{row['dataset']}#{1000 + i}:120" for i in range(graphs)]
    return [_view(task, lanes, split="hidden", dataset=name, **threat) for name in drawn]


def _view(task: str, lanes: int, **options: Any) -> Any:
    """The edit view as any learner gets it."""
    return gymnasium.make_vec(gym_id(task), num_envs=lanes, output="torch", **options).unwrapped


def read(path: str | Path) -> S2V:
    """A policy from its file."""
    if not Path(path).is_file():
        raise DataError(f"no weights at {path}: `advgym train rl-s2v --task TASK` makes them and says where they lie")
    net = S2V()
    load_weights(Path(path), net)
    return net.eval().requires_grad_(False)
