"""Wall time and peak memory of `advgym demo`, after set-up, in a fresh cache."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time

from benchmarks._common import arguments, table


def main() -> None:
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ADVGYM_CACHE": f"{folder}/cache"}
        command = [sys.executable, "-m", "advgym", "demo", "--out", f"{folder}/demo"]
        started = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    table("advgym demo", ["wall seconds", "peak GB"], [[took, peak]], args.json)


if __name__ == "__main__":
    main()
