"""Start-up: `import advgym` beside `import gymnasium`, `--help`, and an attack on one sample beside `import torch`."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

from benchmarks._common import arguments, table

ATTACK = ["-m", "advgym", "attack", "image/digits-linf", "--agent", "pgd", "--episodes", "1"]
COMMANDS = {
    "import gymnasium": ["-c", "import gymnasium"],
    "import advgym": ["-c", "import advgym, sys; assert 'torch' not in sys.modules"],
    "advgym --help": ["-m", "advgym", "--help"],
    "import torch": ["-c", "import torch"],
    "advgym attack, one sample": ATTACK,
}


def cpu(words: list[str]) -> float:
    """CPU seconds of a fresh interpreter and what it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    args = arguments(__doc__)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(args.repeat + 1):  # interleaved; the first round warms the disk
        for name, words in COMMANDS.items():
            spent = cpu(words)
            if turn:
                times[name].append(spent)
    s = {name: statistics.median(found) for name, found in times.items()}
    rows: list[list[object]] = [[name, spent] for name, spent in s.items()]
    rows.append(["import advgym, on top of gymnasium", s["import advgym"] - s["import gymnasium"]])
    rows.append(["the attack over import torch, ratio", s["advgym attack, one sample"] / s["import torch"]])
    table("start-up, CPU seconds (medians)", ["what", "s"], rows, args.json)


if __name__ == "__main__":
    main()
