"""A real recogniser of text lines under attack by its scores: success by characters in error, and queries.

    python -m benchmarks.image.ocr [--queries 500] [--agents noise,square,simba] [--eps 8,16,24]

The model is RapidOCR's (the extra `real`), lines are drawn in Pillow's own font. Success: `--rate` of
the characters of the clean reading are in error (Levenshtein), within Linf eps of 255 on bytes.
"""

from __future__ import annotations

import time
from typing import Any

import advgym
from advgym.envs.image.data.lines import rendered
from benchmarks._common import arguments, table

TEXTS = (
    "Invoice 20461", "Total due 89.50", "Adversarial", "Amsterdam", "Flight KL1234", "meeting at noon", "Hello World",
    "Room 12 B", "do not enter", "serial 7741-A", "Reykjavik", "paid in cash", "order today", "exit", "platform 9",
    "no smoking",
)  # fmt: skip


def main() -> None:
    args = arguments(__doc__, queries=500, rate=0.3, agents="noise,square,simba", eps="8,16,24", lines=16)
    rows: list[list[Any]] = []
    samples = rendered(TEXTS[: args.lines])
    for eps in args.eps.split(","):
        task = advgym.make_task(
            "image/caption", victim="rapidocr:rec", samples=samples, knowledge="score", goal="error-rate",
            rate=args.rate, eps=f"{eps}/255", queries=args.queries,
        )  # fmt: skip
        for agent in args.agents.split(","):
            started = time.process_time()
            result = advgym.attack(task, agent, episodes=len(samples), lanes=len(samples))
            rows.append([f"{eps}/255", agent, result.success_rate, result.queries_mean, time.process_time() - started])
    table(f"{len(samples)} lines, {args.rate:.0%} of characters in error, {args.queries} queries",
          ["eps", "agent", "success", "queries", "CPU s"], rows, args.json)  # fmt: skip


if __name__ == "__main__":
    main()
