"""The same attacks before and after a change: hashes of the perturbations of some sixty (task, agent, seed) rows.

    python -m benchmarks.core.same_attacks --out before.json     # at the commit before
    python -m benchmarks.core.same_attacks --against before.json # at the commit after; exits 1 where they differ

It uses the public names alone, so one file runs at both commits. Rows are in `same_attacks.toml`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tomllib
import warnings
from pathlib import Path

import torch

import advgym

ROWS = Path(__file__).with_suffix(".toml")


def digest(row: dict) -> tuple[str, str]:
    """SHA-256 of what was found: (perturbations and verdicts, those and the queries), of one row."""
    result = advgym.attack(
        row["task"], row["agent"], episodes=row.get("episodes", 6), seed=row.get("seed", 0), **row.get("settings", {})
    )
    found, spent = hashlib.sha256(), hashlib.sha256()
    for s in result.samples:
        stored = s.perturbation.tolist() if hasattr(s.perturbation, "tolist") else s.perturbation
        found.update(repr((s.id, s.success, s.valid, round(s.distance, 6), stored)).encode())
        spent.update(repr((s.queries, s.first_success, s.gradients)).encode())
    return found.hexdigest()[:16], spent.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--against", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = {}
    for row in tomllib.loads(ROWS.read_text())["row"]:
        name = f"{row['task']} {row['agent']} seed {row.get('seed', 0)}"
        found[name] = digest(row)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    if not args.against:
        print(f"{len(found)} rows")
        return 0
    before = {k: tuple(v) for k, v in json.loads(args.against.read_text()).items()}
    moved = [k for k in before if k in found and before[k][0] != found[k][0]]
    spent = [k for k in before if k in found and k not in moved and before[k][1] != found[k][1]]
    gone = [k for k in before if k not in found]
    same = len(before) - len(moved) - len(gone)
    print(
        f"{same} of {len(before)} rows give the same perturbations and verdicts; {len(spent)} of them spend otherwise"
    )
    for title, names in (("other perturbations", moved), ("other costs", spent), ("not run", gone)):
        for k in names:
            print(f"  {title}: {k}")
    return 1 if moved or gone else 0


if __name__ == "__main__":
    sys.exit(main())
