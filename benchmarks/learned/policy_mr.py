"""A policy learns on the training sentences of Movie Reviews and meets searches on sentences that nobody trained on.

All play the word-CNN over the same table (25 % of the words at most, counter-fitted neighbours) with the same few
queries, and the verifier judges. The policy (PPO, `advgym train policy`) is trained on train.jsonl, on which the
victim was trained too, or read from the weights that ship or the cache. "log-odds, by hand" swaps by public features
alone, the largest change of class log-odds first: what a policy has to beat. --dataset: "mr-fresh", the sentences of
test.jsonl that stand neither in train.jsonl nor among TextFooler's 1,000, or those ("mr").

Command: python -m benchmarks.learned.policy_mr   (--steps 50000 --train_queries 25 for other policies)
"""

from __future__ import annotations

import time
from typing import Any

import torch

import advgym
from advgym.agents.learned import policy as learned
from benchmarks._common import arguments, device_label, table
from benchmarks.text.search_grid import fresh

TASK = "text/mr-wordswap"
RIVALS: dict[str, dict[str, Any]] = {
    "random-search": {},
    "wir": {"importance": "delete"},
    "greedy-search": {},
    "additive": {},
}


def by_hand(env: advgym.AttackEnv, *, seed: int = 0) -> None:
    """The swaps of the largest public log-odds against the clean output, one after the other, up to the limit."""
    obs, _ = env.reset(seed=seed)
    closed = (obs["site_features"].shape[2] - 3) // 2  # choices whose change of log-odds is told
    gain = obs["site_features"][:, :, 3 : 3 + closed] * (1 - 2 * obs["output"].float()).view(-1, 1, 1)
    p, lane = env.threat.null(), torch.arange(len(gain))
    while not env.done:
        legal = env.threat.mask(p)[:, :, :closed] & (gain > 0)
        value, cell = torch.where(legal, gain, -torch.inf).flatten(1).max(1)
        able = (value.isfinite() & env.live).view(-1, 1, 1)
        if not bool(able.any()):
            return
        site = cell // closed
        p = torch.where(able, env.threat.compose(p, torch.stack([site, cell % closed], 1)), p)
        gain[lane, site] = -torch.inf
        env.step(torch.where(able, p, -1))


def untrained(env: advgym.AttackEnv, *, seed: int = 0) -> None:
    """The same network with its first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learned.play(env, learned.CellPolicy().eval(), seed)


def main() -> None:
    args = arguments(
        __doc__, queries="10,25", episodes=1000, steps=200_000, train_queries=10, seed=0, dataset="mr-fresh",
        rivals=",".join(RIVALS),
    )  # fmt: skip
    dataset = fresh("") if args.dataset == "mr-fresh" else args.dataset
    spent = time.process_time()
    policy, card = learned.train(TASK, steps=args.steps, queries=args.train_queries, seed=args.seed)
    spent = time.process_time() - spent

    def trained(env: advgym.AttackEnv, *, seed: int = 0) -> None:
        learned.play(env, policy, seed)

    players: list[tuple[str, Any, dict[str, Any]]] = [(n, n, RIVALS[n]) for n in args.rivals.split(",")]
    players += [("log-odds, by hand", by_hand, {}), ("policy, untrained", untrained, {})]
    players += [("policy of text/synth-wordswap", "policy", {}), ("policy, trained", trained, {})]
    for queries in map(int, args.queries.split(",")):
        rows: list[list[object]] = []
        for name, agent, settings in players:
            cpu = time.process_time()
            found = advgym.attack(
                TASK, agent, settings=settings, episodes=args.episodes, seed=args.seed, dataset=dataset,
                knowledge="score", queries=queries, device=args.device,
            )  # fmt: skip
            cpu = time.process_time() - cpu
            assert not any("crashed" in flag for flag in found.flags), found.flags
            won = [s for s in found.samples if s.success]
            low, high = found.success_ci
            words = sum(s.distance for s in won) / max(len(won), 1)
            asked = sum(s.queries for s in won) / max(len(won), 1)
            interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
            rows.append([name, 100 * found.success_rate, interval, found.queries_mean, asked, words, cpu])
        head = ["agent", "success %", "95 % interval", "queries", "of successes", "words of successes", "CPU s"]
        title = f"{TASK}, {found.attacked} of {found.episodes} sentences of {args.dataset}, {queries} queries"
        table(f"{title} ({device_label(args.device)})", head, rows, args.json)
    head = ["trained on", "lane-steps", "queries", "first return", "last return", "CPU s here"]
    row = [TASK, args.steps, args.train_queries, card["first_return"], card["return"], spent]
    table("the policy", head, [row], args.json)


if __name__ == "__main__":
    main()
