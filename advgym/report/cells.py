"""What stands behind each cell of a report's matrices: its file, the command that plays it again, its paper; as CSV."""

from __future__ import annotations

import base64
import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advgym import registry
from advgym.errors import AdvgymError
from advgym.judge.results import Result
from advgym.report.matrix import group_of, ref_of
from advgym.report.papers import paper_of

Key = tuple[str, str, str]  # (agent, task, defense)
HEAD = ("agent", "task", "defense", "knowledge", "attacked", "success", "low", "high", "queries_median",
        "distance_median", "clean_accuracy", "control", "file", "command")  # fmt: skip


@dataclass
class Source:
    """One attack of the page."""

    ref: str
    result: Result
    told: str
    file: str
    command: str
    paper: str
    shown: bool = False  # whether the page has examples of its task


def command_of(r: Result) -> str:
    """The command that plays an attack again; objects of the caller's own cannot be written into it."""
    parts = ["advgym", "attack", r.task, "--agent", r.agent, "--episodes", str(r.episodes), "--lanes", str(r.lanes),
             "--seed", str(r.seed), "--split", r.split]  # fmt: skip
    for name, settings in r.defenses:
        said = ",".join(f"{k}={_word(v)}" for k, v in settings.items())
        parts += ["--defense", f"{name}:{said}" if said else str(name)]
    options = {k: v for k, v in r.options.items() if k not in ("own", "knowledge")}
    for whose, given in (("task", options), ("agent", r.settings)):
        for key, value in given.items():
            parts += ["--set", f"{whose}.{key}={_word(value)}"]
    return shlex.join(parts)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def sources(results: Sequence[Result], files: Mapping[Key, str], shown: Sequence[str]) -> list[Source]:
    """Of every attack, once.

    Args:
        files: result files by (agent, task, defense), as the page names them.
        shown: tasks that the page has examples of.
    """
    out = {}
    for r in results:
        file = files.get((r.agent, r.task, r.defense), "")
        out[ref_of(r)] = Source(ref_of(r), r, group_of(r), file, command_of(r), _paper(r.agent), r.task in shown)
    return list(out.values())


def _paper(agent: str) -> str:
    try:
        return paper_of(registry.agent(agent))
    except AdvgymError:  # a function of the caller's own
        return ""


def as_csv(rows: Sequence[Source]) -> str:
    """The table for a spreadsheet, a line an attack."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    write.writerow(HEAD)
    for s in rows:
        r = s.result
        write.writerow([r.agent, r.task, r.defense, s.told, r.attacked, r.success_rate, *r.success_ci, r.queries_median,
                        r.distance_median, r.clean_accuracy, r.control_rate, s.file, s.command])  # fmt: skip
    return out.getvalue()


def address(text: str) -> str:
    """A text as a data: address that a browser saves."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode("ascii")
