"""The grid of searches: victim x table of candidates x search, as the benchmark of Yoo et al. (2020).

Every search plays the same sentences of Movie Reviews over the same table and word limit (25 % of the words), with a
budget that none but the population searches reaches. Success is the verifier's; queries are means over all attacked
sentences, successes and failures; `distinct` counts each text once. A run keeps what it has measured in --out and goes
on from there.

Command: python benchmarks/search_grid.py                        (200 sentences, the word-CNN; some minutes)
         python benchmarks/search_grid.py --episodes 1000 --victims mr-cnn,mr-bert --out grid
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from _common import arguments, device_label, table

import advgym
from advgym.results import Result

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


def played(args: Any, victim: str, candidates: str, name: str) -> Result:
    """The verified result of one cell, from --out where it is there already."""
    agent, settings = SEARCHES[name]
    knowledge = "white-box" if settings.get("importance") == "gradient" or agent == "hotflip" else "score"
    knowledge = "decision" if agent == "random-search" else knowledge
    path = None
    if args.out:
        Path(args.out).mkdir(parents=True, exist_ok=True)
        plain = name.replace(" ", "_").replace("'", "")
        path = Path(args.out) / f"{victim}-{candidates}-{plain}-{args.episodes}-{args.seed}.json"
        if path.is_file():
            return msgspec.json.decode(path.read_bytes(), type=Result)
    result = advgym.attack(
        "text/mr-wordswap", agent, settings=settings, victim=victim, candidates=candidates, knowledge=knowledge,
        episodes=args.episodes, lanes=64, seed=args.seed, device=args.device, out=path,
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
        out="",
    )  # fmt: skip
    names = [n for n in SEARCHES if not args.searches or any(part in n for part in args.searches.split(","))]
    for victim in args.victims.split(","):
        for candidates in args.tables.split(","):
            rows: list[list[object]] = []
            found: dict[str, tuple[float, float]] = {}
            for name in names:
                result = played(args, victim, candidates, name)
                low, high = result.success_ci
                distinct = mean([s.queries_distinct for s in result.samples])
                found[name] = (result.success_rate, distinct)
                rows.append([
                    name, 100 * result.success_rate, f"[{100 * low:.1f}, {100 * high:.1f}]",
                    mean([s.queries for s in result.samples]), distinct,
                    mean([s.queries_distinct for s in result.samples if s.success]), result.gradients_mean,
                    result.distance_median, result.seconds,
                ])  # fmt: skip
            head = [
                "search",
                "ASR %",
                "95 % interval",
                "queries",
                "distinct",
                "of successes",
                "gradients",
                "edits",
                "s",
            ]
            attacked = result.attacked
            title = f"{victim}, {candidates}: {attacked} attacked of {args.episodes} ({device_label(args.device)})"
            table(title, head, rows, args.json)
            for plain in PLAIN if OURS in found else ():
                if plain in found and not args.json:
                    (rate, asked), (ours, own) = found[plain], found[OURS]
                    print(
                        f"  {OURS} against {plain}: {100 * (ours - rate):+.1f} points, {own / asked:.2f}x the queries"
                    )


if __name__ == "__main__":
    main()
