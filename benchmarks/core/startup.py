"""What `import advgym` adds to `import gymnasium`, and how long `advgym --help` takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks._common import arguments, table


def run(code: str) -> float:
    """Seconds that the interpreter reports for `code`, measured inside it."""
    program = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def main() -> None:
    args = arguments(__doc__)
    add = [run("import gymnasium; t = time.perf_counter(); import advgym") for _ in range(args.repeat)]
    base = [run("import gymnasium") for _ in range(args.repeat)]
    torch_in = run("import advgym, sys; assert 'torch' not in sys.modules")
    del torch_in  # the assertion is what it is for
    command = [sys.executable, "-m", "advgym", "--help"]
    helps = []
    for _ in range(args.repeat):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        helps.append(time.perf_counter() - started)
    rows = [
        ["import gymnasium", statistics.median(base)],
        ["import advgym, on top", statistics.median(add)],
        ["advgym --help", statistics.median(helps)],
    ]
    table("start-up, seconds (wall, medians)", ["what", "s"], rows, args.json)


if __name__ == "__main__":
    main()
