"""CPU seconds of scoring an entry on a shipped board: the evaluator's and the sandbox's, for each of a few submissions.

`advgym test` runs it as a server would, in a process of its own; its CPU time and that of all its children are counted.
Run it at two commits to compare them (PYTHONPATH decides whose advgym is measured); medians over --repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ATTACK = (
    "from advgym import registry\n\n\ndef attack(env, *, seed):\n    registry.agent({agent!r}).attack(env, seed=seed)\n"
)
DEFENSE = (
    "from advgym import registry\n\n\ndef defend(victim, task):\n"
    "    return registry.defense({defense!r}).defend(victim, task)\n"
)
SUBMISSIONS = {
    "square": ("attack", ATTACK.format(agent="square"), 'kind = ["field"]\nknowledge = "score"\n'),
    "greedy": ("attack", ATTACK.format(agent="greedy"), 'kind = ["edits"]\nknowledge = "score"\nproposals = 16\n'),
    "identity": ("defense", "def defend(victim, task):\n    return victim\n", ""),
    "bit-depth": ("defense", DEFENSE.format(defense="bit-depth"), ""),
    "smoothing": ("defense", DEFENSE.format(defense="smoothing"), ""),
}


def cost(name: str, board: str, root: str) -> tuple[float, str]:
    """(CPU seconds, what came of it) of one entry."""
    track, code, more = SUBMISSIONS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "submission"
        folder.mkdir()
        (folder / {"attack": "agent.py", "defense": "defense.py"}[track]).write_text(code)
        (folder / "card.toml").write_text(f'name = "{name}"\ntrack = "{track}"\n{more}')
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "advgym", "test", str(folder), "--board", board, "--json"]
        ran = subprocess.run(
            command, cwd=root, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = json.loads(ran.stdout) if ran.stdout.strip() else {"status": "no answer", "message": ran.stderr[-200:]}
    return spent, f"{said['status']} {said.get('score', 0):.3f} {said.get('reason', '')}".strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--board", default="image")
    parser.add_argument("--root", default=".", help="the checkout that is measured")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(SUBMISSIONS))
    args = parser.parse_args()
    for name in args.only:
        found = [cost(name, args.board, args.root) for _ in range(args.repeat)]
        times = [spent for spent, _ in found]
        print(
            f"{name:12} {statistics.median(times):7.1f} CPU s  ({', '.join(f'{t:.1f}' for t in times)})  {found[0][1]}"
        )


if __name__ == "__main__":
    main()
