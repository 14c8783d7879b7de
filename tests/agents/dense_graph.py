"""A node task by hand: dense adjacencies and models in float64, for the tests of agents on graphs."""

import torch

from advgym import make, registry
from advgym.judge.evaluator import evaluator


def opened(task="graph/karate-edge", lanes=12, proposals=None, **options):
    env = make(task, lanes, proposals, **options)
    obs, _ = env.reset(seed=0)
    return env, obs


def run(name, env, **options):
    entry = registry.agent(name)
    return entry.attack(env.view(proposals=entry.proposals), seed=0, **options)


def dense(env, surrogate=False):
    """(adjacency float64 (N, N), features, a function of adjacencies to scores of all nodes) of an open environment."""
    graph = evaluator(env).batch.graph
    a = torch.zeros(graph.size, graph.size, dtype=torch.float64)
    a[tuple(graph.edge_index())] = 1
    x = graph.inputs_x().double()
    model = (evaluator(env).task.surrogate if surrogate else evaluator(env).task.victim).model
    w = [v.double() if isinstance(v, torch.Tensor) else v for v in model.weights()]

    def scores(a):
        a = a + torch.eye(len(a), dtype=a.dtype)
        scale = a.sum(1).rsqrt()
        a = scale.unsqueeze(1) * a * scale
        hidden = a @ (x @ w[0]) + w[1]
        return a @ ((hidden.relu() if w[4] else hidden) @ w[2]) + w[3]

    return a, scores


def margin(scores, ref):
    return torch.cat([scores[:ref], scores[ref + 1 :]]).max() - scores[ref]


def flipped(a, pairs):
    a = a.clone()
    for i, j in pairs:
        if i >= 0:
            a[i, j] = a[j, i] = 1 - a[i, j]
    return a
