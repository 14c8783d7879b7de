"""A study: the cells of a grid played once each, resumable, placed by an engine, every one verifiable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec

from advgym.errors import AdvgymError, DataError, unknown
from advgym.evaluations import grid, union
from advgym.evaluations.grid import Cell, Study
from advgym.judge import results
from advgym.judge.results import Result
from advgym.judge.run import attack
from advgym.lib.extras import need
from advgym.lib.files import write_atomic

ENGINES = ("local", "ray")


Engine = Callable[[list[Cell], Path, str], Iterator[tuple[Cell, str]]]  # (cells, folder, device) -> (cell, error or "")


def run(
    path: str | Path, out: str | Path, *, engine: str = "local", workers: int = 1, device: str = "cpu",
    told: Callable[[int, int, Cell, str], None] | None = None,
) -> tuple[Study, dict[str, Result], dict[str, str]]:  # fmt: skip
    """Play what is not played yet; the study, its results and its failures by the cells' keys.

    Args:
        out: a folder; `cells/KEY.json` are result files, and a cell that has one is not played again.
        engine: "local" (this machine, `workers` processes) or "ray".
        told: hears (done, of, cell, error or "").
    """
    study, folder = grid.read(path), Path(out)
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if folder.is_file():
        raise AdvgymError(f"{folder} is a file; name a folder for the study")
    place = folder / "cells"
    place.mkdir(parents=True, exist_ok=True)
    have = {c.key: r for c in study.cells if (r := kept(c, place)) is not None}
    todo = [c for c in dict((c.key, c) for c in study.cells).values() if c.key not in have]
    failed: dict[str, str] = {}
    place_all: Engine = _ray if engine == "ray" else _alone if workers < 2 else _pool(workers)
    total = len(have) + len(todo)
    for part in _rounds(study, todo):
        wanted = [c for c in part if not union.over(study, c, have)]
        total -= len(part) - len(wanted)
        for cell, error in place_all(wanted, place, device):
            found = kept(cell, place)
            if error or found is None:
                failed[cell.key] = error or "no result"
            else:
                have[cell.key] = found
            if told:
                told(len(have) + len(failed), total, cell, error)
    return study, have, failed


def _rounds(study: Study, todo: list[Cell]) -> list[list[Cell]]:
    """What is placed at once: all, or of a curve one radius after the other, the smallest first."""
    if not study.curve:
        return [todo]
    by: dict[float, list[Cell]] = {}
    for cell in todo:
        by.setdefault(grid.number_of(grid.value_of(cell, study.curve)), []).append(cell)
    return [by[x] for x in sorted(by)]


def kept(cell: Cell, place: Path) -> Result | None:
    """The result of a cell that was played; None where there is none."""
    try:
        return results.load(place / f"{cell.key}.json")
    except DataError:
        return None


def play(cell: Cell, place: Path, device: str = "cpu") -> str:
    """Play one cell into its file; "" or what went wrong."""
    started = time.perf_counter()
    options = {**({"victim": cell.victim} if cell.victim else {}), **cell.options}
    try:
        attack(
            cell.task, cell.agent, episodes=cell.episodes, lanes=cell.lanes, device=device, seed=cell.seed,
            split=cell.split, settings=dict(cell.settings), defenses=list(cell.defenses),
            clean=max(cell.clean, cell.episodes), out=place / f"{cell.key}.json", **options,
        )  # fmt: skip
    except AdvgymError as error:
        return str(error)
    except Exception as error:  # one cell's fault leaves the others
        return f"{type(error).__name__}: {error}"
    about = {"cell": cell, "command": cell.command, "seconds": time.perf_counter() - started}
    write_atomic(place / f"{cell.key}.cell.json", msgspec.json.encode(about))
    return ""


def _alone(cells: list[Cell], place: Path, device: str) -> Iterator[tuple[Cell, str]]:
    for cell in cells:
        yield cell, play(cell, place, device)


def _pool(workers: int) -> Engine:
    def placed(cells: list[Cell], place: Path, device: str) -> Iterator[tuple[Cell, str]]:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
            jobs = {pool.submit(play, cell, place, device): cell for cell in cells}
            try:
                for job in as_completed(jobs):
                    broke = job.exception()  # a process that died
                    yield jobs[job], job.result() if broke is None else f"{type(broke).__name__}: {broke}"
            finally:
                pool.shutdown(cancel_futures=True)

    return placed


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _ray(cells: list[Cell], place: Path, device: str) -> Iterator[tuple[Cell, str]]:
    ray = need("ray", "engine 'ray' (engine 'local' needs nothing more)")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    remote: Any = ray.remote(num_cpus=1, num_gpus=1 if device.startswith("cuda") else 0)(play)
    jobs = {remote.remote(cell, place.resolve(), device): cell for cell in cells}
    waiting = list(jobs)
    while waiting:
        done, waiting = ray.wait(waiting)
        for job in done:
            yield jobs[job], str(ray.get(job))
