"""Words alone, sentences alone, and both at once (Lei et al., 2019), at the same word budgets, victim and texts.

Two tasks: text/synth-paraphrase, whose grammar knows the meaning, and Movie Reviews with a user's table. The table is
written first, by the rules of `advgym.envs.text.candidates.rewording`, as a TSV of `sentence, paraphrase,
paraphrase ...`, and handed to the task as any user's would be.
"""

from __future__ import annotations

import csv
import logging
import tempfile
from pathlib import Path
from typing import Any

import advgym
from advgym.envs.text.candidates import paraphrases, rewording
from advgym.envs.text.data import corpora
from advgym.judge.results import Result
from advgym.lib.weights import data_dir
from benchmarks._common import arguments, device_label, table

AGENTS = ("joint-paraphrase", "joint-greedy")
BUDGETS: dict[str, tuple[float, ...]] = {"synth": (1, 2, 4, 8), "mr": (1, 2, 4, 0.2)}
SENTENCES = {"synth": 2, "mr": 1}


def write_table(path: Path, most: int = 8) -> int:
    """Paraphrases by rules of every sentence of the MR test texts; how many sentences have any."""
    texts = corpora.movie_reviews().texts["test"]
    sentences = dict.fromkeys(" ".join(s) for text in texts for s in paraphrases.split_sentences(text))
    rows = [[s, *rewording.reword(s, most)] for s in sentences]
    rows = [row for row in rows if len(row) > 1]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    return len(rows)


def play(args: Any, task: str, agent: str, **options: Any) -> Result:
    return advgym.attack(
        task, agent, episodes=args.episodes, lanes=args.lanes, device=args.device, queries=args.queries, **options
    )


def compare(args: Any, name: str, task: str, **options: Any) -> list[list[object]]:
    """Rows: agent, budgets, success of the three, and who alone wins which texts."""
    rows: list[list[object]] = []
    most = SENTENCES[name]
    for agent in AGENTS:
        alone = play(args, task, agent, words=0, sentences=most, **options)
        for words in BUDGETS[name]:
            swaps = play(args, task, agent, words=words, sentences=0, **options)
            joint = play(args, task, agent, words=words, sentences=most, **options)
            won = {s.id for s in swaps.samples if s.success}, {s.id for s in joint.samples if s.success}
            rows.append([
                name, agent, words, most, swaps.attacked, swaps.success_rate, alone.success_rate, joint.success_rate,
                len(won[1] - won[0]), len(won[0] - won[1]), swaps.queries_mean, joint.queries_mean,
            ])  # fmt: skip
            print(*rows[-1], flush=True) if not args.json else None
    return rows


def main() -> None:
    args = arguments(__doc__, episodes=200, lanes=50, queries=500, victim="", tasks="synth,mr")
    logging.getLogger("advgym").setLevel(logging.ERROR)
    given = {"victim": args.victim} if args.victim else {}
    rows = []
    if "synth" in args.tasks:
        rows += compare(args, "synth", "text/synth-paraphrase")
    if "mr" in args.tasks and data_dir() is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mr-paraphrases.tsv"
            print(f"{write_table(path)} sentences with paraphrases in {path.name}")
            rows += compare(args, "mr", "text/mr-paraphrase", paraphrases=str(path), **given)
    head = ["task", "agent", "words", "sentences", "attacked", "words alone", "sentences alone", "joint", "joint only",
            "words only", "queries (words)", "queries (joint)"]  # fmt: skip
    table(f"success by budget, {args.queries} queries ({device_label(args.device)})", head, rows, args.json)


if __name__ == "__main__":
    main()
