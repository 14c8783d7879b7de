"""Metattack: greedy flips by the gradient of a whole training run (Zuegner & Guennemann 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose
from advgym.agents.shared.meta_gradients import GRADIENTS, LOSSES, Meta, Recipe
from advgym.agents.shared.targets import add_first_valid, edges_anywhere, known_labels, node_features, offer
from advgym.errors import AdvgymError, unknown
from advgym.lib.settings import COUNT

NODES = 20_000  # most nodes of a graph whose pairs are all held at once
TOP = 64  # pairs that are looked at for one that the threat model allows


@register_agent(
    "metattack",
    kind="edits",
    knowledge="transfer",
    needs=("edges", "members", "training"),
    allowed={"flips": COUNT, "loss": LOSSES, "gradient": ("surrogate", *GRADIENTS), "steps": COUNT},
)
def attack(env, *, flips=1, loss="self", gradient="surrogate", steps=100, seed=0):
    """Flip by flip the pair of largest meta-gradient; the budget is used up.

    With gradient="surrogate" `env.rank` differentiates the training of the task's surrogate, and the loss is that of
    the members against the surrogate's own clean predictions: one gradient and one query a step. Otherwise the attacker
    trains a network of its own, the paper's, on the public graph and its known labels, and asks nobody before the end:

    | the paper | loss | gradient |
    |---|---|---|
    | Meta-Self, Meta-Train | "self", "train" | "exact" |
    | A-Meta-Self, A-Meta-Train, A-Meta-Both (eq. 10) | "self", "train", "both" | "sum" |
    | the first-order part alone (eq. 9) | any | "last" |

    Args:
        env: Edits.
        flips: how many of the best pairs each gradient chooses; 1 in the paper.
        loss: of all unlabelled nodes against labels from self-training, of the labelled nodes, or both.
        gradient: "surrogate", or what is differentiated of the attacker's own training.
        steps: of that training.
        seed: of its first weights.
    """
    if gradient not in ("surrogate", *GRADIENTS):
        raise unknown("gradient", gradient, ["surrogate", *GRADIENTS])
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    if gradient == "surrogate" and loss != "self":
        raise AdvgymError(
            f"the task's surrogate answers for members alone: loss={loss!r} needs gradient='exact' or 'sum'"
        )
    obs, _ = env.reset(seed=seed)
    if gradient != "surrogate":
        state = _alone(env, obs, flips, loss, gradient, Recipe(steps=steps, seed=seed))
    else:
        state = _ranked(env, flips)
    if env.knowledge == "transfer" or env.done:
        return state
    offer(env, state)
    return state


def _ranked(env, flips: int) -> Tensor:
    """The flips that `env.rank` chooses."""
    state, limit = env.threat.null(), env.table.limit
    for _ in range(int(limit.max())):
        room = limit - (state[..., 0] >= 0).sum(1)
        if env.done or not bool(((room > 0) & env.live).any()):
            break
        found, gains = env.rank(state, k=flips)
        found = torch.where(gains.isfinite().unsqueeze(2), found, -1)
        new = state
        for nth in range(flips):
            more = env.threat.compose(new, found[:, nth])
            longer = (more[..., 0] >= 0).sum(1) > (new[..., 0] >= 0).sum(1)
            new = choose(longer & env.threat.check(more), more, new)
        if torch.equal(new, state):
            break
        state = new
    return state


def _alone(env, obs: dict, flips: int, loss: str, gradient: str, recipe: Recipe) -> Tensor:
    """The flips that the attacker's own training chooses: the same in every lane, since all of it is public."""
    known = known_labels(env, obs)
    if not edges_anywhere(env) or known is None:
        raise AdvgymError("a network of one's own needs a task of edge flips anywhere in a graph with public labels")
    size = int(env.context["num_nodes"])
    if size > NODES:
        raise AdvgymError(f"gradient={gradient!r} holds all pairs of {size} nodes, at most {NODES}")
    a = torch.zeros(size, size, device=env.device)
    a[tuple(env.context["edge_index"].to(env.device))] = 1.0
    x = node_features(env)
    meta = Meta(a, torch.eye(size, device=a.device) if x is None else x, known, recipe)
    state, node = env.threat.null(), torch.arange(size, device=a.device)
    for _ in range(int(env.table.limit.max())):
        now, pairs = a.clone(), state[0][state[0, :, 0] >= 0]
        now[pairs[:, 0], pairs[:, 1]] = now[pairs[:, 1], pairs[:, 0]] = 1 - a[pairs[:, 0], pairs[:, 1]]
        gains = meta.gains(now, loss=loss, gradient=gradient)
        gains = gains.masked_fill(node.unsqueeze(1) >= node, -torch.inf)
        gains[pairs[:, 0], pairs[:, 1]] = -torch.inf
        top = gains.flatten().topk(min(max(TOP, flips), gains.numel())).indices
        edits = torch.stack([top // size, top % size], 1)
        new = state
        for nth in range(flips):
            new = add_first_valid(env, new, edits[nth if flips > 1 else 0 :].expand(len(state), -1, -1))
        if torch.equal(new, state):
            break
        state = new
    return state
