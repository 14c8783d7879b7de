"""What attacks break per propagation: the order of `auto`'s members in `agents/suites.toml` is read off this table.

Every agent that fits plays every task at two budgets. Printed: success, and samples broken per 1,000 propagations
(queries and gradients that were spent), for each knowledge level that the agent can play.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from advgym import AdvgymError, attack

TASKS = (
    "text/synth-wordswap", "text/synth-charswap", "text/synth-insert", "graph/sbm-edge", "graph/sbm-feature",
    "graph/karate-edge", "speech/synth-bands",
)  # fmt: skip
AGENTS = ("first-order", "greedy", "greedy-search", "beam", "genetic", "wir", "additive", "exhaustive", "coverage",
          "fga", "hard-label", "decision-search", "random-search")  # fmt: skip


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--agents", default=",".join(AGENTS))
    parser.add_argument("--queries", default="50,200")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--victim", default="", help="of all tasks, in place of their own")
    args = parser.parse_args()
    more = {"victim": args.victim} if args.victim else {}
    console = Console()
    for task in args.tasks.split(","):
        table = Table("agent", *[f"{q} queries: success, per 1,000" for q in args.queries.split(",")], title=task)
        for agent in args.agents.split(","):
            cells = []
            for queries in map(int, args.queries.split(",")):
                try:
                    r = attack(
                        task, agent, episodes=args.episodes, queries=queries, gradients=queries, clean=200, **more
                    )
                except AdvgymError:
                    break
                spent = sum(s.queries + s.gradients for s in r.samples)
                won = sum(s.success for s in r.samples)
                cells.append(f"{r.success_rate:.2f}  {1000 * won / max(spent, 1):.1f}")
            if cells:
                table.add_row(agent, *cells)
        console.print(table)


if __name__ == "__main__":
    main()
