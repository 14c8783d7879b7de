"""A policy over single edits that knows no table by heart: features of cells, a small network, and its training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from advgym.agents.search.additive import hopes
from advgym.agents.shared.slots import Slots

FEATURES = 11
CELLS = 1024  # of a lane at most; larger tables are sampled


class CellPolicy(nn.Module):
    """Logits of every cell and the value of a state, from features (n, M, FEATURES) and which cells exist (n, M).

    The same weights serve every cell, so that tables of any number of sites and choices are played.
    """

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        self.cell = nn.Sequential(nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.mixed = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU())
        self.choice, self.value = nn.Linear(hidden, 1), nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU())
        self.last = nn.Linear(hidden, 1)
        nn.init.normal_(self.choice.weight, std=0.01)  # it starts nearly uniform over the legal cells

    def forward(self, features: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
        """(logits (n, M), values (n,))."""
        here = some.unsqueeze(2).to(features.dtype)
        cell = self.cell(features) * here
        mean = cell.sum(1, keepdim=True) / here.sum(1, keepdim=True).clamp_min(1)
        logits = self.choice(self.mixed(torch.cat([cell, mean.expand_as(cell)], 2))).squeeze(2)
        value = self.last(self.value(torch.cat([mean.squeeze(1), cell.amax(1)], 1))).squeeze(1)
        return logits, value


class State:
    """What the policy sees of every lane, and the moves it may make. Positions as of `Slots`, (lanes, 1, slots)."""

    def __init__(self, env, draws, obs: dict) -> None:
        self.slots = Slots(env, draws, CELLS)
        self.x = self.slots.clean(1)
        self.objective = self.start = _first(obs["objective"]).detach()
        self.left = self.most = obs["queries_left"]
        self.fixed = _public(obs, self.slots)

    def see(self) -> tuple[Tensor, Tensor]:
        """(features (lanes, M, FEATURES), legal moves bool (lanes, M)): put in, replace, take back one of several."""
        slots, x = self.slots, self.x[:, 0]
        at = torch.cat([x, torch.full_like(x[:, :1], -1)], 1).gather(1, slots.slot)
        held = (at == torch.arange(at.shape[1], device=at.device)) & slots.some
        taken, count = at >= 0, (x >= 0).sum(1, keepdim=True)
        room = count < slots.limit.unsqueeze(1)
        legal = slots.some & torch.where(held, count > 1, taken | room)
        used = count / slots.limit.unsqueeze(1).clamp_min(1)
        lane = [self.objective, self.start, self.left / self.most.clamp_min(1), used.squeeze(1)]
        lane[:2] = [torch.asinh(v) for v in lane[:2]]
        wide = torch.stack([v.float() for v in lane], 1).unsqueeze(1).expand(-1, held.shape[1], -1)
        return torch.cat([self.fixed, torch.stack([held, taken], 2).float(), wide], 2), legal

    def move(self, cell: Tensor) -> Tensor:
        """The perturbations (lanes, E, 2) after one move each, int64 (lanes,)."""
        slot = self.slots.slot.gather(1, cell.unsqueeze(1)).clamp_max(self.slots.slots - 1)
        back = self.x[:, 0].gather(1, slot) == cell.unsqueeze(1)
        self.x = self.x.scatter(2, slot.unsqueeze(1), torch.where(back, -1, cell.unsqueeze(1)).unsqueeze(1))
        return self.slots.edits(self.x)[:, 0]

    def hear(self, obs: dict) -> None:
        """Enter the answer to the last move."""
        answered = _first(obs["evaluated"])
        self.objective = torch.where(answered, _first(obs["objective"]).detach(), self.objective)
        self.left = obs["queries_left"]


def _first(values: Tensor) -> Tensor:
    return values if values.dim() == 1 else values[:, 0]


def _public(obs: dict, slots: Slots) -> Tensor:
    """What needs no victim, float32 (lanes, M, 5): changes of log-odds and frequency, the site's own, one."""
    site, change = slots.cells[..., 0].clamp_min(0), slots.cells[..., 1]
    out = torch.zeros(*slots.some.shape, 5, device=slots.some.device)
    out[..., 4] = 1.0
    features = obs.get("site_features")
    if features is None or "words" not in obs:
        return out
    closed = (features.shape[2] - 3) // 2
    lane = torch.arange(len(site), device=site.device).unsqueeze(1)
    out[..., 0] = hopes(obs, slots)
    out[..., 1] = features[lane, site, 3 + closed + change.clamp(0, closed - 1)]
    away = 1.0 - 2.0 * _first(obs["output"]).view(-1, 1) if obs["output"].dim() <= 2 else 0.0
    out[..., 2], out[..., 3] = features[lane, site, 1] * away, features[lane, site, 2]
    return torch.where(slots.some.unsqueeze(2), out, 0.0)


def ppo(
    policy: CellPolicy, make_env: Any, *, steps: int, lanes: int, queries: int, lr: float, seed: int, epochs: int = 4,
    batch: int = 512, clip: float = 0.2, entropy: float = 0.003, tell: Any = None,
) -> None:  # fmt: skip
    """Proximal policy optimisation (Schulman et al. 2017) on whole episodes, undiscounted, lambda 0.95.

    Args:
        make_env: () -> environment of `lanes` lanes with one proposal each.
        steps: lane-steps in all.
        tell: called with (steps so far, mean return).
    """
    env, optimizer = make_env(), torch.optim.Adam(policy.parameters(), lr=lr)
    generator, done, episode = torch.Generator().manual_seed(seed), 0, 0
    while done < steps:
        seen = rollout(policy, env, queries, seed + episode)
        episode, done = episode + 1, done + queries * lanes
        optimizer.param_groups[0]["lr"] = lr * max(1 - done / steps, 0.05)
        for _ in range(epochs):
            for index in torch.randperm(len(seen["cell"]), generator=generator).split(batch):
                part = {k: v[index] for k, v in seen.items()}
                logits, value = policy(part["features"], part["some"])
                log = logits.masked_fill(~part["legal"], -torch.inf).log_softmax(1)
                now = log.gather(1, part["cell"].unsqueeze(1)).squeeze(1)
                ratio = (now - part["log"]).exp()
                gain = part["gain"] * ratio
                gain = torch.minimum(gain, part["gain"] * ratio.clamp(1 - clip, 1 + clip))
                spread = -(log.exp() * log.masked_fill(~part["legal"], 0.0)).sum(1)
                loss = -gain.mean() + 0.5 * (value - part["return"]).square().mean() - entropy * spread.mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
                optimizer.step()
        if tell is not None:
            tell(done, float(seen["total"].mean()))


@torch.no_grad()
def rollout(policy: CellPolicy, env, queries: int, seed: int) -> dict[str, Tensor]:
    """One episode of every lane, flat over the steps that lanes were alive."""
    obs, _ = env.reset(seed=seed)
    draws = env.draws(seed)
    state, kept = State(env, draws, obs), []
    for _ in range(queries):
        if env.done:
            break
        features, legal = state.see()
        alive = env.live & legal.any(1)
        logits, value = policy(features, state.slots.some)
        logits = logits.masked_fill(~legal, -torch.inf)
        cell = sample(logits, draws)
        obs, reward, *_ = env.step(torch.where(alive.view(-1, 1, 1), state.move(cell), -1))
        state.hear(obs)
        log = logits.log_softmax(1).gather(1, cell.unsqueeze(1)).squeeze(1)
        kept.append({"features": features, "some": state.slots.some, "legal": legal, "cell": cell, "log": log,
                     "value": value, "reward": reward, "alive": alive})  # fmt: skip
    gain = after = torch.zeros(())
    back: list[Tensor] = []
    for step in reversed(kept):  # generalised advantages; a lane that has ended is worth nothing
        error = step["reward"] + after - step["value"]
        gain = torch.where(step["alive"], error + 0.95 * gain, 0.0)
        after = torch.where(step["alive"], step["value"], 0.0)
        back.append(gain)
    flat = {k: torch.cat([s[k] for s in kept]) for k in kept[0]}
    gains = torch.cat(back[::-1])
    alive = flat.pop("alive")
    flat["return"] = gains + flat["value"]
    flat["gain"] = (gains - gains[alive].mean()) / (gains[alive].std() + 1e-6)
    out = {k: v[alive] for k, v in flat.items()}
    out["total"] = flat["reward"].sum().div(env.num_envs).expand(len(out["cell"]))
    return out


def sample(logits: Tensor, draws) -> Tensor:
    """One cell per lane by keyed Gumbel noise; 0 where no move is legal."""
    noise = -torch.log(-torch.log(draws.uniform(logits.shape[1]).clamp(1e-7, 1 - 1e-7)))
    return (logits + noise).argmax(1)
