"""Attacks on a translator (Multi30k en-de): non-overlap and target keywords (Seq2Sick: Cheng et al., 2018).

Two candidate tables. "vocabulary" is Seq2Sick's own: every word that the task knows may replace every other, stop words
included. "counter-fitted" offers up to 8 neighbours of each content word (Mrksic et al., 2016). Non-overlap may change
3 words; keywords have a limit of their own. Settings were chosen on captions of the test split; `--split val` plays
captions that nothing was chosen on.

Command: python benchmarks/seq2seq.py
         python benchmarks/seq2seq.py --split val --tables vocabulary --goals "non-overlap,1 keyword" --queries 2000
             --keyword_edits 8 --agents seq2sick,joint-greedy        (one line)
"""

from __future__ import annotations

import logging

from _common import arguments, device_label, table

import advgym

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


def main() -> None:
    args = arguments(
        __doc__, task="text/multi30k-wordswap", split="test", episodes=100, lanes=50, queries=1000, edits=3,
        keyword_edits=6,
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
                r = advgym.attack(
                    args.task, agent, split=args.split, episodes=args.episodes, lanes=args.lanes, device=args.device,
                    queries=args.queries, gradients=args.queries, edits=edits, **TABLES[space], **GOALS[goal],
                )  # fmt: skip
                words = [s.distance for s in r.samples if s.success]
                changed = sum(words) / max(len(words), 1)
                crashed = "; ".join(f for f in r.flags if "crashed" in f)[:60]
                rows.append([
                    space, goal, edits, agent, r.attacked, r.success_rate, changed, r.queries_mean, r.gradients_mean,
                    crashed,
                ])  # fmt: skip
                if not args.json:
                    print(*rows[-1], flush=True)
    head = ["table", "goal", "limit", "agent", "attacked", "success", "words changed", "queries", "gradients", ""]
    table(f"{args.task}, {args.split}, {args.queries} queries ({device_label(args.device)})", head, rows, args.json)


if __name__ == "__main__":
    main()
