"""An audit: one model on some data, attacked by the suite at the most it allows, checked, summed up per sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from advgym import registry
from advgym.core.clean import assigned
from advgym.core.task import Task, make_task
from advgym.errors import AdvgymError, DataError
from advgym.evaluations import findings, plan, subject
from advgym.evaluations.gradients import none_of
from advgym.evaluations.report import Audit
from advgym.evaluations.worst import sum_up
from advgym.judge import results
from advgym.judge.checks import flag
from advgym.judge.results import Result
from advgym.judge.run import attack
from advgym.judge.verdict import victim_card
from advgym.lib import machine
from advgym.lib.extras import says_missing
from advgym.lib.settings import check_seed

CLEAN = 1000  # samples that clean accuracy is over, where the split has more
Told = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What an audit plays on: the task by name and as made, its options, and which samples, how."""

    task: str
    made: Task
    options: Mapping[str, Any]
    defenses: Any
    ids: list[int]
    split: str
    lanes: int
    device: Any
    seed: int
    folder: Path | None


@says_missing
def audit(
    model: Any, data: Any = None, *, domain: str | None = None, task: str | None = None, budget: str = "standard",
    episodes: int = 100, defenses: Any = (), out: str | Path | None = None, device: Any = "cpu", seed: int = 0,
    split: str = "test", lanes: int = 64, told: Told | None = None,
    progress: Callable[[str, int, int, int], None] | None = None, command: str = "", callbacks: Any = (),
    **options: Any,
) -> Audit:  # fmt: skip
    """How robust a model is, and whether the figure can be trusted.

    Plays the suite at the strongest knowledge that the model allows, one row that is told less, and one from another
    victim where the task names one; a sample is robust where no row breaks it. Then runs the checks of
    `advgym/judge/checks.toml`.

    Args:
        model: a registered victim, "transformers:NAME|FOLDER", "torchaudio:NAME", "http://...", "module:object", or an
            object.
        data: a data set's name, a path, "module:object" or samples; None for those of a registered victim.
        domain, task: where the model and the data do not tell.
        budget: "quick", "standard" or "thorough": 100, 400 or 2,000 propagations a sample and row.
        out: a folder for the rows, `audit.json` and what `advgym.evaluations.files` writes; an interrupted audit goes
            on from it.
        told: hears lines about what is done; progress: (row, done, total, broken).
        callbacks: told of every row's attack, as of `advgym.attack`.
        command: that made it, as the page and the card show it.
        options: the threat model's, as for `advgym.make`.

    Raises:
        AdvgymError: for a model that is none, data without labels, a domain that cannot be told, a budget too small.
    """
    started, seed = time.perf_counter(), check_seed(seed)
    say = told or (lambda _: None)
    if episodes < 1:
        raise AdvgymError(f"episodes is at least 1, not {episodes}")
    found = subject.read(model, data, domain=domain, task=task)
    given = {**found.options, **options}
    made = make_task(found.task, defenses=defenses, **given)
    row = registry.task_row(found.task)[1]
    ids = assigned(made.sizes[made.check_split(split)], episodes)
    known: list[str] = []
    if made.threat.knowledge == "white-box" and (why := none_of(made, split, ids, device)):
        given = {**given, "knowledge": "score"}
        made, known = make_task(found.task, defenses=defenses, **given), [flag("broken-gradients", error=why)]
    rows = plan.plan(made, found.task, budget, "surrogate" in given or "surrogate" in row)
    ids = assigned(made.sizes[made.check_split(split)], episodes)
    order = Order(
        found.task, made, given, defenses, ids, split, lanes, device, seed, None if out is None else Path(out)
    )
    say(f"{found.task} ({found.why}); victim {made.victim.name}, {made.threat.knowledge} knowledge")
    for line in plan.lines(rows, len(ids), plan.pace(made, split, ids[:16], device)):
        say(line)
    played: dict[str, Result] = {}
    for r in rows:
        result, kept = _row(order, r, progress, callbacks)
        say(
            f"{r.name}: {result.success_rate:.1%} of {result.attacked} broken" + (" (kept from before)" if kept else "")
        )
        played[r.name] = result
    say("checks")
    about = findings.find(made, found.task, split, ids, played, rows, device=device, seed=seed, known=known)
    whole = sum_up(made, rows, played, ids, split)
    whole.model = model if isinstance(model, str) else made.victim.name
    whole.data = str(data) if isinstance(data, str | Path) else "" if data is None else "own"
    whole.why, whole.budget, whole.command, whole.findings = found.why, budget, command, about
    whole.void = any(f.severity == "void" for f in about)
    whole.seconds = round(time.perf_counter() - started, 3)
    if order.folder is not None:
        from advgym.evaluations.files import write

        write(order.folder, whole, played, made)
    return whole


def _row(order: Order, r: plan.Planned, progress: Any, callbacks: Any) -> tuple[Result, bool]:
    """A row played, or kept from an earlier run of the same audit, and which of the two."""
    place = None if order.folder is None else order.folder / "rows" / f"{r.name}.json"
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        kept = _kept(place, order, r)
        if kept is not None:
            return kept, True
    tick = None if progress is None else (lambda done, total, wins: progress(r.name, done, total, wins))
    many = len(order.ids)
    result = attack(
        order.task, r.agent, episodes=many, lanes=order.lanes, device=order.device, seed=order.seed, split=order.split,
        settings=r.settings, defenses=order.defenses, out=place, progress=tick, clean=max(CLEAN, many),
        callbacks=callbacks,
        **{**order.options, **r.options},
    )  # fmt: skip
    return result, False


def _kept(place: Path, order: Order, r: plan.Planned) -> Result | None:
    """The row of an earlier run of the very same audit; None where it is another one's, or not finished."""
    try:
        found = results.load(place)
    except DataError:
        return None
    threat = msgspec.to_builtins(replace(order.made.threat, **r.options))
    same = ("knowledge", "queries", "gradients", "constraint", "goal")
    said = (found.task, found.agent, found.settings, found.split, found.seed, found.episodes, found.versions,
            [found.threat[k] for k in same], found.victim)  # fmt: skip
    want = (order.task, registry.agent(r.agent).name, r.settings, order.split, order.seed, len(order.ids),
            machine.versions(), [threat[k] for k in same], victim_card(order.made))  # fmt: skip
    return found if msgspec.json.encode(said) == msgspec.json.encode(want) else None


def check_place(folder: Path) -> None:
    """Refuse to write an audit where something else lies.

    Raises:
        AdvgymError: naming what is in the way.
    """
    if folder.is_file():
        raise AdvgymError(f"{folder} is a file; name a folder for the audit")
