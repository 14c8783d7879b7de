"""RL-S2V's network and its Q-learning (Dai et al. 2018): node embeddings of the perturbed graph, two picks an edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from advgym.agents.shared.targets import PublicGraph, estimate_labels, known_labels, node_features, target_graph

NODE, LANE = 11, 4  # features of a node, of a lane
DENSE = 1024  # graphs up to this many nodes are summed over by a matrix


class S2V(nn.Module):
    """Q-values of both picks from structure2vec embeddings (Dai et al. 2016).

    mu <- relu(W f + U A_hat mu), `rounds` times on the perturbed graph, degrees normalised as a GCN does. The first
    pick is valued from its embedding, the target's and the lane's state, the second besides from the first's.
    """

    def __init__(self, hidden: int = 16, rounds: int = 2) -> None:
        super().__init__()
        self.rounds = rounds
        self.own, self.send = nn.Linear(NODE, hidden), nn.Linear(hidden, hidden, bias=False)
        self.first = nn.Sequential(nn.Linear(2 * hidden + LANE, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.second = nn.Sequential(nn.Linear(4 * hidden + LANE + NODE, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def embed(self, scene: Scene, state: Tensor) -> tuple[Tensor, Tensor]:
        """(mu (n, N, hidden), node features (n, N, NODE)) of the scene's lanes with edits (n, E, 2)."""
        f, spread = scene.features(state)
        own = self.own(f)
        mu = own.relu()
        for _ in range(self.rounds):
            mu = (own + self.send(spread(mu))).relu()
        return mu, f

    def q_first(self, scene: Scene, mu: Tensor, lane: Tensor) -> Tensor:
        """Q of every first pick, (n, N)."""
        wide = torch.cat([_of(mu, scene.target), lane], 1).unsqueeze(1).expand(-1, mu.shape[1], -1)
        return self.first(torch.cat([mu, wide], 2)).squeeze(2)

    def q_second(self, scene: Scene, mu: Tensor, f: Tensor, lane: Tensor, first: Tensor) -> Tensor:
        """Q of every second pick after `first` (n,): (n, N)."""
        start = _of(mu, first)
        wide = torch.cat([start, _of(mu, scene.target), lane], 1).unsqueeze(1).expand(-1, mu.shape[1], -1)
        return self.second(torch.cat([mu, mu * start.unsqueeze(1), f, wide], 2)).squeeze(2)


def _of(mu: Tensor, node: Tensor) -> Tensor:
    return mu[torch.arange(len(mu), device=mu.device), node]


@dataclass
class Scene:
    """What the network sees of lanes on one graph: all that is public, and the clean answer.

    Attributes:
        fixed: float32 (n, N, 7): is the target; its known class is the predicted one, the runner-up, another; its
            estimated class is the predicted one, the runner-up; cosine of features with the target's.
        start: float32 (n,), the clean objective.
    """

    graph: PublicGraph
    target: Tensor
    fixed: Tensor
    start: Tensor
    matrix: Tensor | None

    @classmethod
    def of(cls, env: Any, obs: dict[str, Tensor]) -> Scene:
        """From an environment of edges around one node, and the observation of its reset."""
        graph = target_graph(env, "rl-s2v")
        target, n, size = graph.target, len(graph.target), graph.size
        scores, ref = obs["scores"].detach().view(n, -1), obs["output"].reshape(n, -1)[:, 0]
        second = scores.scatter(1, ref.unsqueeze(1), -torch.inf).argmax(1)
        fixed = torch.zeros(n, size, 7, device=target.device)
        fixed[torch.arange(n, device=target.device), target, 0] = 1
        known, x = known_labels(env, obs), node_features(env)
        if known is not None:
            guess = estimate_labels(graph, x, known)
            mine, other = known == ref.unsqueeze(1), known == second.unsqueeze(1)
            fixed[..., 1], fixed[..., 2], fixed[..., 3] = mine, other, (known >= 0) & ~mine & ~other
            fixed[..., 4], fixed[..., 5] = guess == ref.unsqueeze(1), guess == second.unsqueeze(1)
        if x is not None:
            unit = x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)
            fixed[..., 6] = unit[target] @ unit.T
        matrix = None
        if size <= DENSE:
            matrix = torch.zeros(size * size, device=target.device)
            matrix[graph.keys] = 1
            matrix = matrix.view(size, size)
        return cls(graph, target, fixed, obs["objective"].detach().reshape(n), matrix)

    def repeat(self, times: int) -> Scene:
        """The same lanes `times` times over."""
        fixed = self.fixed.repeat(times, 1, 1)
        return Scene(self.graph, self.target.repeat(times), fixed, self.start.repeat(times), self.matrix)

    def features(self, state: Tensor) -> tuple[Tensor, Any]:
        """(float32 (n, N, NODE), a function that sends (n, N, h) one hop on the perturbed graphs)."""
        n, size = self.fixed.shape[:2]
        a, b = state.clamp_min(0).unbind(2)
        sign = torch.where(state[..., 0] >= 0, 1.0 - 2.0 * self.graph.has(a, b).float(), 0.0)
        degree = self.graph.degree.expand(n, -1).scatter_add(1, a, sign).scatter_add(1, b, sign)
        beside = self.graph.has(self.target.unsqueeze(1), torch.arange(size, device=a.device)).float()
        edited = torch.zeros_like(degree)
        for end, far in ((a, b), (b, a)):
            beside = beside.scatter_add(1, far, sign * (end == self.target.unsqueeze(1)))
            edited = edited.scatter_add(1, far, sign.abs())
        scale = (degree + 1).rsqrt()
        f = torch.cat([self.fixed, torch.stack([degree.log1p(), scale, beside, edited], 2)], 2)

        def spread(h: Tensor) -> Tensor:
            h = h * scale.unsqueeze(2)
            if self.matrix is not None:
                out = h + self.matrix @ h
            else:
                out = h + self.graph.sum_neighbours(h.transpose(0, 1)).transpose(0, 1)
            for one, other in ((a, b), (b, a)):
                moved = h.gather(1, other.unsqueeze(2).expand(-1, -1, h.shape[2])) * sign.unsqueeze(2)
                out = out.scatter_add(1, one.unsqueeze(2).expand_as(moved), moved)
            return out * scale.unsqueeze(2)

        return f, spread


def lane_features(scene: Scene, objective: Tensor, state: Tensor, limit: Tensor) -> Tensor:
    """Float32 (n, LANE): the objective here and clean, edits used and left."""
    used = (state[..., 0] >= 0).sum(1)
    parts = [objective.asinh(), scene.start.asinh(), used / limit.clamp_min(1), (limit - used).float() / 4]
    return torch.stack([p.float() for p in parts], 1)


def open_first(env: Any, scene: Scene) -> Tensor:
    """Bool (n, N): first picks: the target, or its neighbours where edits may not touch it."""
    graph = scene.graph
    if graph.direct:
        return scene.fixed[..., 0] > 0
    near = graph.beside(scene.target)
    return torch.where(near.any(1, keepdim=True), near, env.table.site_mask())


def open_second(scene: Scene, state: Tensor, first: Tensor) -> Tensor:
    """Bool (n, N): second picks that make a new pair."""
    size = scene.fixed.shape[1]
    node = torch.arange(size, device=first.device)
    out = (node != first.unsqueeze(1)) & (node != scene.target.unsqueeze(1))
    for one, other in (state.unbind(2), state.unbind(2)[::-1]):
        hit = (one == first.unsqueeze(1)) & (one >= 0)
        held = torch.zeros_like(out, dtype=torch.int64).scatter_add(1, other.clamp_min(0), hit.long())
        out &= held == 0
    return out


# -- training ----------------------------------------------------------------------------------------------------------
def q_learning(
    net: S2V, views: list[Any], *, rounds: int, lr: float, seed: int, updates: int = 3, keep: int = 48, tell: Any = None
) -> None:
    """Double Q-learning (van Hasselt et al. 2016) over whole episodes: as many edges as are allowed, undiscounted.

    Args:
        views: edit views (`gymnasium.make_vec`), played in turn, each edge as two picks; epsilon falls from 1 to
            0.05 over half of the rounds.
        rounds: episodes of every lane of a view.
        updates: of the network after each; each on one of the last `keep` episodes.
        tell: called with (round, mean return).
    """
    frozen = S2V(net.own.out_features, net.rounds)
    frozen.load_state_dict(net.state_dict())
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    memory: list[dict[str, Any]] = []
    for t in range(rounds):
        epsilon = max(1 - 0.95 * t / (0.5 * rounds), 0.05)
        memory = [*memory[-keep + 1 :], episode(net, views[t % len(views)], seed + t, epsilon)]
        optimizer.param_groups[0]["lr"] = lr * max(1 - t / rounds, 0.05)
        for _ in range(updates):
            past = memory[int(torch.randint(len(memory), (), generator=generator))]
            loss = temporal_difference(net, frozen, past)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        if t % 10 == 9:
            frozen.load_state_dict(net.state_dict())
        if tell is not None:
            tell(t, float(memory[-1]["reward"].sum(0).mean()))


@torch.no_grad()
def episode(net: S2V, view: Any, seed: int, epsilon: float) -> dict[str, Any]:
    """One episode of every lane through the public view; steps first: state, first, second, reward, alive ..."""
    obs, _ = view.reset(seed=seed)
    env = view.env
    scene, draws, limit = Scene.of(env, obs), env.draws(seed), env.table.limit
    assert scene is not None
    steps: list[dict[str, Tensor]] = []
    for _ in range(int(limit.max())):
        if env.done:
            break
        state, alive = obs["perturbation"].clone(), env.live.clone()
        lane = lane_features(scene, obs["objective"].reshape(-1), state, limit)
        firsts = open_first(env, scene)
        mu, f = net.embed(scene, state)
        first = pick(net.q_first(scene, mu, lane), firsts, draws, epsilon)
        seconds = open_second(scene, state, first)
        second = pick(net.q_second(scene, mu, f, lane, first), seconds, draws, epsilon)
        obs, reward = play_pair(view, scene.graph.pair(first, second))
        steps.append({"state": state, "lane": lane, "firsts": firsts, "first": first, "seconds": seconds,
                      "second": second, "reward": reward * alive, "alive": alive})  # fmt: skip
    return {"scene": scene, **{k: torch.stack([s[k] for s in steps]) for k in steps[0]}}


def play_pair(view: Any, edit: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Both picks of an edge through the view: site and choice in two steps, or their cell where its table is flat."""
    if hasattr(view, "phase"):
        view.step(edit[:, 0])
        obs, reward, *_ = view.step(edit[:, 1])
    else:
        obs, reward, *_ = view.step(edit[:, 0] * view.env.table.choices + edit[:, 1])
    return obs, reward


def pick(q: Tensor, able: Tensor, draws: Any, epsilon: float) -> Tensor:
    """One open node per lane, int64 (n,): of largest Q, or with probability `epsilon` any."""
    explore = draws.uniform() < epsilon
    value = torch.where(explore.unsqueeze(1), draws.uniform(q.shape[1]), q)
    return torch.where(able, value, -torch.inf).argmax(1)


def temporal_difference(net: S2V, frozen: S2V, past: dict[str, Any]) -> Tensor:
    """Huber loss of both picks' values: the first is worth the best second, the second its reward and what follows."""
    many, n = past["first"].shape
    scene = past["scene"].repeat(many)
    flat = {k: v.flatten(0, 1) for k, v in past.items() if k != "scene"}
    mu, f = net.embed(scene, flat["state"])
    every = net.q_first(scene, mu, flat["lane"])
    after = net.q_second(scene, mu, f, flat["lane"], flat["first"])
    q1 = every.gather(1, flat["first"].unsqueeze(1)).squeeze(1)
    q2 = after.gather(1, flat["second"].unsqueeze(1)).squeeze(1)
    with torch.no_grad():
        mu, f = frozen.embed(scene, flat["state"])
        best = after.masked_fill(~flat["seconds"], -torch.inf).argmax(1, keepdim=True)
        worth1 = frozen.q_second(scene, mu, f, flat["lane"], flat["first"]).gather(1, best).squeeze(1)
        best = every.masked_fill(~flat["firsts"], -torch.inf).argmax(1, keepdim=True)
        value = frozen.q_first(scene, mu, flat["lane"]).gather(1, best).squeeze(1).view(many, n)
        value = torch.where(past["alive"], value, 0.0)
        then = torch.cat([value[1:], torch.zeros_like(value[:1])])
        worth2 = flat["reward"] + then.flatten()
    alive = flat["alive"].float()
    loss = nn.functional.smooth_l1_loss(q1, worth1, reduction="none")
    loss = loss + nn.functional.smooth_l1_loss(q2, worth2, reduction="none")
    return (loss * alive).sum() / alive.sum().clamp_min(1)
