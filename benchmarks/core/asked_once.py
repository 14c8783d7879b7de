"""What searches are charged and what the victim is asked anew, with and without their memory of what was asked.

Each agent plays the same samples twice: as it is, and told that the victim draws at random (`env.keyed`), so that it
keeps nothing and asks what it has asked before. Queries and distinct inputs are means over the attacked samples.

Command: python -m benchmarks.core.asked_once                          (embedded tasks; some minutes)
         python -m benchmarks.core.asked_once --tasks graph/karate-edge --agents genetic
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from advgym import attack, registry
from advgym.judge.results import Result
from benchmarks._common import arguments, device_label, table


def stubborn(texts: list[str]) -> list[list[float]]:
    """Scores that are never beaten, and not constant."""
    return [[1.0, 0.001 * (len(t) % 7)] for t in texts]


FEW = {  # three to five sets of edits in each text: all that there is to ask
    "victim": stubborn, "samples": [(t, 0) for t in ("good film", "a good film", "dull plot", "good dull plot")],
    "candidates": {"good": ["fine", "decent"], "dull": ["slow", "grey"], "film": ["movie"], "plot": ["story"]},
    "edits": 2,
}  # fmt: skip
BLIND = ("hard-label", "decision-search", "random-search", "genetic")
# The task, what it is played with, and the agents that keep what they asked.
CASES: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("text/wordswap", FEW, (*BLIND, "pwws", "joint-greedy")),
    ("text/synth-wordswap", {}, (*BLIND, "pwws", "joint-greedy")),
    ("image/digits-pixel", {"pixels": 1}, (*BLIND, "joint-greedy")),
    ("graph/karate-edge", {}, (*BLIND, "joint-greedy", "rl-s2v")),
    ("image/digits-linf", {"eps": "1/16"}, ("square", "decision-search", "genetic", "random-search")),
    ("image/digits-linf", {}, ("square",)),
    ("speech/synth-keyword", {}, ("square",)),
]


class Forgetful:
    """An environment whose agents take nothing for known."""

    keyed = True

    def __init__(self, env: Any) -> None:
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def view(self, *args: Any, **more: Any) -> Forgetful:
        return Forgetful(self._env.view(*args, **more))


def forgetful(name: str) -> registry.Agent:
    """The same agent without its memory."""
    entry = registry.agent(name)
    return replace(entry, attack=lambda env, **more: entry.attack(Forgetful(env), **more))


def figures(result: Result) -> list[float]:
    """Queries charged and distinct ones, means over the attacked; success rate."""
    return [result.queries_mean, result.queries_distinct_mean or 0.0, result.success_rate]


def main() -> None:
    args = arguments(__doc__ or "", episodes=50, queries=300, tasks="", agents="")
    rows: list[list[object]] = []
    for task, options, agents in CASES:
        if args.tasks and task not in args.tasks.split(","):
            continue
        for name in agents:
            if args.agents and name not in args.agents.split(","):
                continue
            play = {"episodes": args.episodes, "queries": args.queries, "device": args.device}
            kept, again = (attack(task, a, **play, **options) for a in (name, forgetful(name)))
            told = f"{task}, few choices" if options is FEW else task + "".join(f" {k}={v}" for k, v in options.items())
            rows.append([told, name, kept.attacked, *figures(kept), *figures(again)])
    head = ["task", "agent", "attacked", "queries", "distinct", "success", "queries, forgetful", "distinct, forgetful",
            "success, forgetful"]  # fmt: skip
    table(f"At most {args.queries} queries on {device_label(args.device)}", head, rows, args.json)


if __name__ == "__main__":
    main()
