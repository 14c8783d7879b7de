"""MaskablePPO learns on the training split to swap words, and meets random search on the test split.

Both play the same test samples with the same budget, and the verifier judges both. The policy reads `site_features`,
which come from the corpus and not from the victim, and the state; word ids are left out.

Command: python -m benchmarks.learned.rl_maskable_ppo   (needs the extra `rl`; --json for JSON)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

import advgym
from advgym.clients.sb3 import AdvgymVecEnv
from benchmarks._common import arguments, device_label, table

TASK = "text/synth-wordswap"
READS = ("site_features", "perturbation", "output", "objective", "queries_left")
Agent = Callable[..., None]


class SiteRows(BaseFeaturesExtractor):
    """A dict of observations to one row per site, float32 (n, sites, D). Reads `READS` and nothing else.

    A row holds the site's features once per output of the victim (zeros but for the present one, so that a linear layer
    can give every output weights of its own), the choice held there, and three numbers of the whole lane.
    """

    def __init__(self, space: spaces.Dict, choices: int) -> None:
        self.sites, width = space["site_features"].shape
        self.choices, self.outputs = choices, int(space["output"].high.max()) + 1
        self.rows, self.queries = space["perturbation"].shape[0], float(space["queries_left"].high.max())
        super().__init__(space, width * self.outputs + choices + 3)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        features = obs["site_features"].float()
        present = nn.functional.one_hot(obs["output"][:, 0].long().clamp_min(0), self.outputs).float()
        each = (features.unsqueeze(2) * present[:, None, :, None]).flatten(2)
        edits = obs["perturbation"].long()
        used = edits[..., 0] >= 0
        cell = torch.where(used, edits[..., 0] * self.choices + edits[..., 1], self.sites * self.choices)
        held = features.new_zeros(len(features), self.sites * self.choices + 1).scatter_(1, cell, 1.0)
        held = held[:, :-1].view(-1, self.sites, self.choices)
        lane = torch.stack(
            [
                torch.asinh(obs["objective"][:, 0].float()),
                obs["queries_left"][:, 0].float() / self.queries,
                used.float().mean(1),
            ],
            1,
        )
        return torch.cat([each, held, lane.unsqueeze(1).expand(-1, self.sites, -1)], 2)


class SiteHead(nn.Module):
    """Logits of every cell from rows of sites, with the same weights at every site, and the latent of the critic."""

    def __init__(self, width: int, sites: int, choices: int, hidden: int = 64) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = sites * choices, hidden
        self.site = nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
        self.mixed = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU())
        self.choice = nn.Linear(hidden, choices)
        self.critic = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU())

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(rows), self.forward_critic(rows)

    def forward_actor(self, rows: Tensor) -> Tensor:
        site = self.site(rows)
        around = site.mean(1, keepdim=True).expand_as(site)
        return self.choice(self.mixed(torch.cat([site, around], 2))).flatten(1)

    def forward_critic(self, rows: Tensor) -> Tensor:
        site = self.site(rows)
        return self.critic(torch.cat([site.mean(1), site.amax(1)], 1))


class SitePolicy(MaskableActorCriticPolicy):
    """MaskablePPO's policy with `SiteHead`'s logits as they are: no dense layer over all cells."""

    def _build_mlp_extractor(self) -> None:
        rows = self.features_extractor
        self.mlp_extractor = SiteHead(rows.features_dim, rows.sites, rows.choices)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.action_net = nn.Identity()
        nn.init.normal_(self.mlp_extractor.choice.weight, std=0.01)  # it starts nearly uniform over the legal cells
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)


def learner(
    queries: int, *, task: str = TASK, lanes: int = 64, seed: int = 0, n_steps: int = 32, device: str = "cpu"
) -> MaskablePPO:
    """MaskablePPO over `lanes` training episodes at once, untrained."""
    env = AdvgymVecEnv(task, lanes, split="train", knowledge="score", queries=queries, device=device)
    sites = env.observation_space["site_features"].shape[0]
    kwargs = {
        "features_extractor_class": SiteRows,
        "features_extractor_kwargs": {"choices": int(env.action_space.n) // sites},
    }
    return MaskablePPO(
        SitePolicy, env, n_steps=n_steps, batch_size=512, n_epochs=4, learning_rate=1e-3, gamma=1.0, gae_lambda=0.95,
        ent_coef=0.003, policy_kwargs=kwargs, seed=seed, device=device,
    )  # fmt: skip


def agent(policy: SitePolicy) -> Agent:
    """The policy behind the agent contract: it composes its proposal edit by edit and samples by keyed draws."""

    @torch.no_grad()
    def attack(env: advgym.AttackEnv, *, seed: int = 0) -> None:
        """A learned policy over single edits."""
        clean, _ = env.reset(seed=seed)
        draws, p, now = env.draws(seed), env.threat.null(), clean
        choices = env.table.choices
        while not env.done:
            state = {**now, "perturbation": p}
            state = {k: state[k] if state[k].dim() > 1 else state[k].unsqueeze(1) for k in READS}
            logits = policy.mlp_extractor.forward_actor(policy.features_extractor(state))
            noise = -torch.log(-torch.log(draws.uniform(logits.shape[1]).clamp(1e-7, 1 - 1e-7)))
            cell = torch.where(env.threat.mask(p).flatten(1), logits + noise, -torch.inf).argmax(1)
            p = env.threat.compose(p, torch.stack([cell // choices, cell % choices], 1))
            obs, *_ = env.step(p)
            back = (p[..., 0] < 0).all(1)  # at clean again, whose answer is known and free
            answers = {k: torch.where(back.view(-1, *[1] * (v.dim() - 1)), clean[k], v) for k, v in obs.items()}
            now = {**answers, "queries_left": obs["queries_left"]}

    return attack


def by_hand(env: advgym.AttackEnv, *, seed: int = 0) -> None:
    """What `site_features` alone gives: the swaps of the largest log-odds against the output, one after the other."""
    obs, _ = env.reset(seed=seed)
    swaps = (obs["site_features"].shape[2] - 3) // 2
    gain = obs["site_features"][:, :, 3 : 3 + swaps] * (1 - 2 * obs["output"].float()).view(-1, 1, 1)
    p = env.threat.null()
    for _ in range(p.shape[1]):
        legal = env.threat.mask(p)[:, :, :swaps] & (gain > 0)
        value, cell = torch.where(legal, gain, -torch.inf).flatten(1).max(1)
        able = value.isfinite().view(-1, 1, 1)
        site, choice = cell // swaps, cell % swaps
        p = torch.where(able, env.threat.compose(p, torch.stack([site, choice], 1)), p)
        gain[torch.arange(len(p)), site] = -torch.inf
        if env.done:
            return
        env.step(torch.where(able, p, -1))  # the null perturbation, which is free, where nothing is left to swap


def judged(who: str | Agent, queries: int, episodes: int, seed: int = 0, device: str = "cpu") -> Any:
    """The verifier's result on the first test samples, the same ones for everybody."""
    found = advgym.attack(TASK, who, episodes=episodes, queries=queries, seed=seed, knowledge="score", device=device)
    assert not any("crashed" in flag for flag in found.flags), found.flags
    return found


def main() -> None:
    args = arguments(__doc__, queries=10, episodes=1000, steps=200_000, lanes=64, seed=0)
    budget = (args.queries, args.episodes, args.seed, args.device)
    model = learner(args.queries, lanes=args.lanes, seed=args.seed, device=args.device)
    results: dict[str, Any] = {}
    for name in ("random-search", "genetic", "greedy"):
        results[name] = judged(name, *budget)
    results["log-odds, by hand"] = judged(by_hand, *budget)
    results["policy, untrained"] = judged(agent(model.policy), *budget)
    started, cpu = time.perf_counter(), time.process_time()
    model.learn(args.steps)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    model.policy.set_training_mode(False)
    results["policy, MaskablePPO"] = judged(agent(model.policy), *budget)

    base, rows = results["random-search"].success_rate, []
    for name, r in results.items():
        low, high = r.success_ci
        rows.append(
            [name, r.success_rate, f"[{low:.3f}, {high:.3f}]", r.queries_mean, r.success_rate / max(base, 1e-9)]
        )
    head = ["agent", "success rate", "95 % interval", "mean queries", "times random-search"]
    title = f"{TASK}, {r.attacked} test samples, {args.queries} queries each, verified ({device_label(args.device)})"
    table(title, head, rows, args.json)
    head = ["training steps", "lanes", "seconds", "CPU seconds", "steps per second"]
    row = [model.num_timesteps, args.lanes, wall, cpu, model.num_timesteps / wall]
    table("MaskablePPO on the training split", head, [row], args.json)


if __name__ == "__main__":
    main()
