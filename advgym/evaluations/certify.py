"""Certified accuracy: what a defended victim proves about its own answers, by radius.

Nothing here knows a domain: the model behind the victim offers the certificate (`advgym.core.kinds.certificates`).
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from advgym.core.clean import assigned
from advgym.core.kinds.certificates import certifier, sizes
from advgym.core.task import Task, make_task
from advgym.errors import AdvgymError, DataError, unknown
from advgym.judge.results import Result
from advgym.judge.verdict import victim_card
from advgym.lib import machine
from advgym.lib.files import write_atomic
from advgym.lib.rates import wilson
from advgym.lib.settings import check_seed

POINTS = 9  # radii of a table, where none are asked for
NEAR = 1e-6  # how much nearer than a radius of floats an attack has to be, for rounding
CHUNK = 50  # samples that are certified at once


class Row(msgspec.Struct, frozen=True):
    """One sample. `radius` is None where nothing that the task allows moves the answer; 0 where it abstains."""

    id: int
    label: int
    prediction: int
    radius: float | None
    abstain: bool
    right: bool


class Point(msgspec.Struct, frozen=True):
    """The share of samples that are right and certified at a radius, and its interval of 95 %."""

    radius: float | None
    accuracy: float
    ci: tuple[float, float]


class Certified(msgspec.Struct, tag_field="format", tag="advgym-certify/1"):
    """A certification as its file holds it."""

    task: str
    defenses: list[str]
    victim: dict[str, Any]
    split: str
    episodes: int
    seed: int
    settings: dict[str, Any]
    unit: str
    clean_accuracy: float
    abstained: float
    curve: list[Point]
    samples: list[Row]
    seconds: float
    device: str
    versions: dict[str, str]


def certify(
    task: Any, *, defenses: Any = (), episodes: int = 100, split: str = "test", seed: int = 0, device: Any = "cpu",
    radii: Sequence[float] = (), settings: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None, **options: Any,
) -> Certified:  # fmt: skip
    """Certify samples of a task, one after another in the order of an evaluation.

    Args:
        task: a name or a `Task`; defenses, options: as for `advgym.make_task`.
        episodes: samples of the split.
        radii: of the curve, in the certificate's unit; () for some that span what was found.
        settings: of the certificate (`draws`, `alpha` ...).
        progress: hears (done, all).

    Raises:
        AdvgymError: where the victim offers no certificate, or not on this task, or a setting is none of its own.
    """
    if episodes < 1:
        raise AdvgymError(f"episodes is at least 1, not {episodes}")
    seed = check_seed(seed)
    made = make_task(task, defenses=defenses, **options)
    find, own = _offered(made), dict(settings or {})
    known = known_settings(find)
    for name in own:
        if name not in known:
            raise unknown(f"setting of the certificate of {made.victim.name}", name, known)
    _check(own)
    ids = assigned(made.sizes[made.check_split(split)], episodes)
    started, rows, unit = time.perf_counter(), list[Row](), ""
    find = _offered(made, device)
    for some in (ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK)):
        batch = made.samples(split, some, device)
        found = find(batch, seed=seed, **own)
        unit = found.unit
        truth, said, radius = (t.tolist() for t in (batch.labels, found.prediction, found.radius))
        rows += [
            Row(i, y, c, None if math.isinf(r) else round(r, 6), c < 0, c == y)
            for i, y, c, r in zip(some, truth, said, radius, strict=True)
        ]
        if progress is not None:
            progress(len(rows), len(ids))
    n = len(rows)
    return Certified(
        task=made.name, defenses=list(made.defenses), victim={**victim_card(made), "name": made.victim.name},
        split=split, episodes=n, seed=seed,
        settings={**{k: v for k, v in known.items() if v is not inspect.Parameter.empty}, **own}, unit=unit,
        clean_accuracy=sum(r.right for r in rows) / n, abstained=sum(r.abstain for r in rows) / n,
        curve=[_point(rows, r) for r in (list(radii) or _radii(rows, unit))], samples=rows,
        seconds=round(time.perf_counter() - started, 3), device=str(device), versions=machine.versions(),
    )  # fmt: skip


def known_settings(find: Callable[..., Any]) -> dict[str, Any]:
    """The settings of a certificate and their defaults."""
    found = inspect.signature(find).parameters.values()
    return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY and p.name != "seed"}


def _check(own: dict[str, Any]) -> None:
    """The settings that certificates share, by their meaning."""
    alpha = own.get("alpha", 0.5)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1:
        raise AdvgymError(f"alpha is a number between 0 and 1, not {alpha!r}")
    for name in ("pick", "draws"):
        value = own.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 20:
            raise AdvgymError(f"{name} is a whole number from 1 to {(1 << 20) - 1}, not {value!r}")


def _offered(task: Task, device: Any = "cpu") -> Callable[..., Any]:
    """The certificate of the task's victim on a device, or an error that says who offers one."""
    found = certifier(task.victim.on(device))
    if found is None:
        behind = f" behind {', '.join(task.defenses)}" if task.defenses else ""
        raise AdvgymError(
            f"victim {task.victim.name!r}{behind} offers no certificate: the last defense has to be one that does, "
            "--defense gaussian-smoothing or interval-bounds (Fields), word-bounds (words); or take a victim that "
            "offers one itself, as --set victim=karate-gcn-smoothed"
        )
    return found


def _radii(rows: list[Row], unit: str) -> list[float | None]:
    """Radii that span what was found: every whole one of edits, else round steps; None: whatever is allowed."""
    found: list[float | None] = list(_steps(rows, unit))
    return [*found, None] if any(r.radius is None for r in rows) or (unit == "edits" and found == [0.0]) else found


def _steps(rows: list[Row], unit: str) -> list[float]:
    most = max((r.radius or 0.0 for r in rows), default=0.0)
    if unit not in ("l2", "linf"):
        return [float(r) for r in range(int(most) + 1)]
    if most <= 0:  # nothing, or everything that the task allows
        return [0.0]
    raw = most / (POINTS - 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    return [round(i * step, 10) for i in range(int(most / step) + 2)]


def accuracy_at(rows: Sequence[Row], radius: float | None) -> float:
    """The share of samples that are right, and certified at a radius (None: against all that the task allows)."""
    return sum(_held(r, radius) for r in rows) / len(rows)


def _held(row: Row, radius: float | None) -> bool:
    return row.right and (row.radius is None or (radius is not None and row.radius >= radius))


def _point(rows: list[Row], radius: float | None) -> Point:
    many = sum(_held(r, radius) for r in rows)
    return Point(radius, many / len(rows), wilson(many, len(rows)))


# -- an attack beside it -----------------------------------------------------------------------------------------------
def broken(task: Task, split: str, result: Result, device: Any = "cpu", seed: int = 0) -> list[int]:
    """Ids of successes nearer than the certified radius, where the model itself settles on another answer.

    [] where the victim offers no certificate on this task, or its unit is none that an attack is measured in.
    """
    wins = [s for s in result.samples if s.success and s.perturbation is not None]
    find = certifier(task.victim.on(device))
    if find is None or not wins:
        return []
    ids = [s.id for s in wins]
    batch = task.samples(split, ids, device)
    try:
        found = find(batch, seed=seed)
    except AdvgymError:
        return []
    form = batch.look(batch.load([s.perturbation for s in wins])).form
    size = sizes(batch, form, found.unit)
    if size is None:
        return []
    near = size.to(found.radius.device) <= found.radius - (0.0 if batch.kind == "edits" else NEAR)
    inside = ((found.prediction >= 0) & near).nonzero().squeeze(1)
    if not len(inside):
        return []
    keys = batch.ids[inside] + (seed + 1) * 2**32 % 2**63
    model: Any = task.victim.on(device).module
    said = model.settled(batch.inputs(form[inside], inside), keys)
    wrong = (said >= 0) & (said != found.prediction[inside])
    return [ids[i] for i in inside[wrong].tolist()]


# -- files -------------------------------------------------------------------------------------------------------------
def save(found: Certified, path: Path) -> None:
    """As JSON; the file is whole or not there."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(found), indent=1))


def load(path: Path) -> Certified:
    """The file again.

    Raises:
        DataError: for what is no such file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Certified)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is no file of `advgym certify --out`: {error}") from None
