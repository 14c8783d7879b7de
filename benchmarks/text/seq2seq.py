"""Attacks on a translator (Multi30k en-de): non-overlap and target keywords (Seq2Sick: Cheng et al., 2018).

Two candidate tables. "vocabulary" is Seq2Sick's own: every word that the task knows may replace every other, stop words
included. "counter-fitted" offers up to 8 neighbours of each content word (Mrksic et al., 2016). Non-overlap may change
3 words; keywords have a limit of their own. Settings were chosen on captions of the test split; `--split val` plays
captions that nothing was chosen on. Intervals are Wilson's; "at half" counts successes within half of the queries.

Command: python -m benchmarks.text.seq2seq
         python -m benchmarks.text.seq2seq --split val --first 200 --tables vocabulary --queries 2000 --keyword_edits 8
             --goals "1 keyword,2 keywords,3 keywords" --agents seq2sick,joint-greedy        (one line)
"""

from __future__ import annotations

import argparse
import logging
import time
from typing import Any

import advgym
from advgym import registry
from advgym.core.clean import answer
from advgym.judge.play import chunks, play
from advgym.judge.results import Sample
from advgym.lib.rates import wilson
from benchmarks._common import arguments, device_label, table

TABLES: dict[str, dict[str, object]] = {
    "vocabulary": {"candidates": "vocabulary", "antonyms": False, "stopwords": False},
    "counter-fitted": {"candidates": "counter-fitted"},
}
GOALS: dict[str, dict[str, object]] = {
    "non-overlap": {"goal": "untargeted"},
    "1 keyword": {"goal": "keyword", "keywords": 1},
    "2 keywords": {"goal": "keyword", "keywords": 2},
    "3 keywords": {"goal": "keyword", "keywords": 3},
}


def played(args: argparse.Namespace, agent: str, options: dict[str, Any]) -> tuple[list[Sample], str, float]:
    """Captions `first` to `first + episodes` of the split that the victim has right: rows, a crash, CPU seconds."""
    entry = registry.agent(agent)
    task = advgym.make_task(
        args.task, knowledge=entry.knowledge, queries=args.queries, gradients=args.queries, **options
    )  # fmt: skip
    ids = list(range(args.first, min(args.first + args.episodes, task.sizes[args.split])))
    clean = task.samples(args.split, ids, args.device)
    right = task.goal.right(answer(task.victim.on(args.device), clean, task.goal), clean.labels).tolist()
    ids = [i for i, fine in zip(ids, right, strict=True) if fine]
    rows: list[Sample] = []
    crashed, cpu = "", time.process_time()
    for batch in chunks(ids, args.lanes):
        new, error = play(task, entry, batch, args.device, args.seed, args.split, {})
        rows, crashed = rows + new, crashed or error
    return rows, crashed, time.process_time() - cpu


def main() -> None:
    args = arguments(
        __doc__, task="text/multi30k-wordswap", split="test", first=0, episodes=100, lanes=50, queries=1000, edits=3,
        keyword_edits=6, seed=0,
        agents="noise,seq2sick,first-order,joint-paraphrase,joint-greedy,genetic", tables="vocabulary,counter-fitted",
        goals=",".join(GOALS),
    )  # fmt: skip
    logging.getLogger("advgym").setLevel(logging.ERROR)
    rows: list[list[object]] = []
    card = advgym.make_task(args.task).victim.card
    print(", ".join(f"{k} {v:.4g}" for k, v in card.items() if isinstance(v, float)))
    for space in args.tables.split(","):
        for goal in args.goals.split(","):
            edits = args.edits if goal == "non-overlap" else args.keyword_edits
            for agent in args.agents.split(","):
                found, crashed, cpu = played(args, agent, {"edits": edits, **TABLES[space], **GOALS[goal]})
                won = [s for s in found if s.success]
                low, high = wilson(len(won), len(found))
                many = max(len(found), 1)
                rows.append([
                    space, goal, edits, agent, len(found), len(won) / many, f"[{low:.2f}, {high:.2f}]",
                    sum(2 * s.first_success <= args.queries for s in won) / many,
                    sum(s.distance for s in won) / max(len(won), 1), sum(s.queries for s in found) / many,
                    sum(s.gradients for s in found) / many, cpu, crashed[:60],
                ])  # fmt: skip
                if not args.json:
                    print(*rows[-1], flush=True)
    head = [
        "table", "goal", "limit", "agent", "attacked", "success", "95 % interval", "at half", "words changed",
        "queries", "gradients", "CPU s", "",
    ]  # fmt: skip
    title = f"{args.task}, {args.split} from {args.first} on, {args.queries} queries ({device_label(args.device)})"
    table(title, head, rows, args.json)


if __name__ == "__main__":
    main()
