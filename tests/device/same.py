"""Play once on the CPU and once on the pretended card, and tell what differs."""

import traceback
import warnings
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import msgspec
from pretend import card
from torch.nn.attention import SDPBackend, sdpa_kernel

from advgym import make_task, registry
from advgym.core.offers import fits
from advgym.judge.columns import Meter
from advgym.judge.run import play

HERE = "cpu"


def embedded(row):
    """No download, no ADVGYM_DATA."""
    dataset = row.get("dataset", "")
    return dataset in ("digits", "karate", "sbm") or dataset.startswith("synth")


TASKS = [name for name, row in registry._built_in().tasks.items() if embedded(row)]
# An agent with an argument plays another library's attack, which has its own idea of devices.
AGENTS = {n: e for n, e in registry.agents().items() if e.origin.startswith("advgym.") and not e.argument}


def told(rows):
    """Everything that rows say, NaN as a word, so that equal rows are equal."""
    return [{k: repr(v) for k, v in msgspec.to_builtins(r).items()} for r in rows]


def differences(here, there):
    """Where the rows of two runs differ."""
    return [
        f"sample {a['id']}: {k} is {a[k]} on the CPU and {b[k]} on the card"
        for a, b in zip(told(here), told(there), strict=True)
        for k in a
        if a[k] != b[k]
    ]


def both(run, draws="own"):
    """(run("cpu"), run(the card)), each an error's text where it raised.

    Attention has a kernel of its own on the CPU that a card has not: both take the plain one.
    """
    found = []
    for place in (nullcontext(HERE), card(draws)):
        with place as device, sdpa_kernel(SDPBackend.MATH):
            try:
                found.append(run(device))
            except Exception as error:
                traceback.print_exc()  # pytest shows it where the test fails
                found.append(f"{type(error).__name__}: {error}")
    return found


def play_both(task, entry, ids, draws="own"):
    """What is wrong with an agent on a task, one line each."""
    task = replace(task, threat=replace(task.threat, knowledge=entry.knowledge))

    def run(device):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return play(task, entry, ids, device, 1, "test", {}, Meter(task, None))

    here, there = both(run, draws)
    if isinstance(here, str) or here[1]:
        return [f"on the CPU: {here if isinstance(here, str) else here[1]}"]
    if isinstance(there, str) or there[1]:
        return [f"on the card: {there if isinstance(there, str) else there[1]}"]
    return differences(here[0], there[0])


def fitting(task):
    batch = task.samples("test", [0])
    return [entry for entry in AGENTS.values() if fits(entry, task, batch)]


@cache
def made(name, queries, **options):
    return make_task(name, queries=queries, gradients=queries, **options)
