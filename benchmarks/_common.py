"""What the benchmarks share: one thread, medians of interleaved runs, a table on the terminal and as JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch


def arguments(description: str, **defaults: object) -> argparse.Namespace:
    """--device, --repeat, --json, and one option per default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    torch.set_num_threads(1)
    return parser.parse_args()


def sync(device: object) -> None:
    """Wait for the accelerator."""
    if str(device).startswith("cuda"):
        torch.cuda.synchronize()


def clock(function: Callable[[], object], device: object = "cpu") -> float:
    """Seconds of one call: CPU seconds of this one-threaded process (neighbours do not count), wall on a GPU."""
    now = time.perf_counter if str(device).startswith("cuda") else time.process_time
    sync(device)
    started = now()
    function()
    sync(device)
    return now() - started


def race(runners: dict[str, Callable[[], object]], repeat: int, device: object = "cpu") -> dict[str, float]:
    """Median seconds of each runner; rounds are interleaved, so that a noisy neighbour hits all of them."""
    for function in runners.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repeat):
        for name, function in runners.items():
            times[name].append(clock(function, device))
    return {name: statistics.median(values) for name, values in times.items()}


def device_label(device: object) -> str:
    """The device's own name."""
    if str(device).startswith("cuda"):
        return torch.cuda.get_device_name(str(device))
    return f"cpu, {torch.get_num_threads()} thread, torch {torch.__version__}"


def table(title: str, head: list[str], rows: list[list[object]], as_json: bool = False) -> None:
    """Print the rows, aligned; or as one JSON object."""
    if as_json:
        print(json.dumps({"title": title, "rows": [dict(zip(head, row, strict=True)) for row in rows]}))
        return
    cells = [head, *[[f"{c:.4g}" if isinstance(c, float) else str(c) for c in row] for row in rows]]
    widths = [max(len(r[i]) for r in cells) for i in range(len(head))]
    print(f"\n{title}")
    for row in cells:
        print("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)))
