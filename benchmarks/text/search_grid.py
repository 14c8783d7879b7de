"""The grid of searches: victim x table of candidates x search, as the benchmark of Yoo et al. (2020).

Every search plays the same sentences of Movie Reviews over the same table and word limit (25 % of the words), with a
budget that none but the population searches reaches. Success is the verifier's; queries are means over all attacked
sentences, successes and failures; `distinct` counts each text once. `words` are those changed, of successes; `valid` is
success with the meaning kept, by the task's column that no search sees. A run keeps what it has measured in --out and
goes on from there.

--dataset: "mr" (TextFooler's 1,000 sentences, on which settings were chosen), "mr-fresh" (the other test sentences, on
which none were), or a folder with train.jsonl and test.jsonl.

Command: python -m benchmarks.text.search_grid   (200 sentences, the word-CNN; some minutes)
         python -m benchmarks.text.search_grid --episodes 1000 --victims mr-cnn,mr-bert --out grid
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

import advgym
from advgym.judge.results import Result
from benchmarks._common import arguments, device_label, table

SEARCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "random-search (200)": ("random-search", {}),
    "greedy-search": ("greedy-search", {}),
    "beam4": ("beam", {"width": 4}),
    "beam8": ("beam", {"width": 8}),
    "wir-unk": ("wir", {"importance": "unk"}),
    "wir-delete": ("wir", {"importance": "delete"}),
    "wir-pwws": ("wir", {"importance": "pwws"}),
    "wir-gradient": ("wir", {"importance": "gradient"}),
    "wir-random": ("wir", {"importance": "random"}),
    "pwws (the paper's)": ("pwws", {}),
    "textfooler": ("textfooler", {}),
    "hotflip": ("hotflip", {}),
    "genetic": ("genetic", {}),
    "alzantot": ("alzantot", {}),
    "pso": ("pso", {}),
    "additive (ours)": ("additive", {}),
    "additive, no log-odds": ("additive", {"prior": False}),
}
OURS, PLAIN = "additive (ours)", ("greedy-search", "wir-delete")


def letters(text: str) -> str:
    """What is left of a sentence without case, spaces and punctuation: equal for equal sentences however tokenised."""
    return "".join(c for c in text.lower() if c.isalnum())


def fresh(out: str) -> str:
    """A folder with the sentences of $ADVGYM_DATA/text/mr/test.jsonl that neither train.jsonl nor mr-1000.txt holds.

    Args:
        out: where it is made; "" for a temporary folder, which goes at the end.
    """
    source = Path(os.environ["ADVGYM_DATA"]).resolve() / "text" / "mr"
    train, test = ((source / f"{split}.jsonl").read_text("utf-8").splitlines() for split in ("train", "test"))
    looked_at = (source / "mr-1000.txt").read_text("utf-8").splitlines()
    seen = {letters(json.loads(line)["text"]) for line in train}
    seen |= {letters(line.partition(" ")[2]) for line in looked_at}
    kept = [line for line in test if letters(json.loads(line)["text"]) not in seen]
    if out:
        folder = Path(out) / "mr-fresh"
    else:
        made = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        folder = Path(made) / "mr-fresh"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text("\n".join(train), "utf-8")
    (folder / "test.jsonl").write_text("\n".join(kept), "utf-8")
    said = f"{len(kept)} of {len(test)} sentences of test.jsonl stand in neither train.jsonl nor mr-1000.txt"
    print(said, file=sys.stderr, flush=True)
    return str(folder)


def played(args: Any, victim: str, candidates: str, name: str) -> Result:
    """The verified result of one cell, from --out where it is there already."""
    agent, settings = SEARCHES[name]
    knowledge = "white-box" if settings.get("importance") == "gradient" or agent == "hotflip" else "score"
    knowledge = "decision" if agent == "random-search" else knowledge
    path = None
    if args.out:
        Path(args.out).mkdir(parents=True, exist_ok=True)
        plain = name.replace(" ", "_").replace("'", "")
        of = "" if args.dataset == "mr" else f"{Path(args.dataset).name}-"
        path = Path(args.out) / f"{of}{victim}-{candidates}-{plain}-{args.episodes}-{args.seed}.json"
        if path.is_file():
            return msgspec.json.decode(path.read_bytes(), type=Result)
    result = advgym.attack(
        "text/mr-wordswap", agent, settings=settings, dataset=args.dataset, victim=victim, candidates=candidates,
        knowledge=knowledge, episodes=args.episodes, lanes=64, seed=args.seed, device=args.device, out=path,
        queries=200 if agent == "random-search" else args.queries, gradients=args.queries,
    )  # fmt: skip
    assert not any("crashed" in flag for flag in result.flags), result.flags
    return result


def mean(values: list[int]) -> float:
    """0 for none."""
    return sum(values) / max(len(values), 1)


def main() -> None:
    args = arguments(
        __doc__, episodes=200, queries=5000, victims="mr-cnn", tables="counter-fitted,wordnet", searches="", seed=0,
        dataset="mr", out="",
    )  # fmt: skip
    given = args.dataset
    if given == "mr-fresh":
        args.dataset = fresh(args.out)
    names = [n for n in SEARCHES if not args.searches or any(part in n for part in args.searches.split(","))]
    for victim in args.victims.split(","):
        for candidates in args.tables.split(","):
            rows: list[list[object]] = []
            found: dict[str, tuple[float, float, float]] = {}
            for name in names:
                result = played(args, victim, candidates, name)
                low, high = result.success_ci
                distinct = mean([s.queries_distinct for s in result.samples])
                kept, words = result.columns["kept"], result.columns["words_changed"]
                found[name] = (result.success_rate, distinct, kept.success_rate or 0.0)
                rows.append([
                    name, 100 * result.success_rate, f"[{100 * low:.1f}, {100 * high:.1f}]",
                    mean([s.queries for s in result.samples]), distinct,
                    mean([s.queries_distinct for s in result.samples if s.success]), result.gradients_mean,
                    words.mean_success or 0.0, 100 * (kept.success_rate or 0.0), result.seconds,
                ])  # fmt: skip
            head = [
                "search",
                "ASR %",
                "95 % interval",
                "queries",
                "distinct",
                "of successes",
                "gradients",
                "words",
                "valid %",
                "s",
            ]
            attacked = result.attacked
            what = f"{victim}, {candidates}: {attacked} attacked of {result.episodes} of {given}"
            title = f"{what} ({device_label(args.device)})"
            table(title, head, rows, args.json)
            for plain in PLAIN if OURS in found else ():
                if plain in found and not args.json:
                    (rate, asked, kept_by), (ours, own, kept_own) = found[plain], found[OURS]
                    print(
                        f"  {OURS} against {plain}: {100 * (ours - rate):+.1f} points, {own / asked:.2f}x the queries, "
                        f"{100 * (kept_own - kept_by):+.1f} points with the meaning kept"
                    )


if __name__ == "__main__":
    main()
