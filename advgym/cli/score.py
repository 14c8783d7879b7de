"""`advgym score`: attacks against defenses on a board, in this process, for the author's own use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from advgym.cli.pulse import keeps
from advgym.cli.shared import completion
from advgym.cli.shared.command import Device, Json
from advgym.cli.shared.tables import emit
from advgym.errors import AdvgymError, unknown
from advgym.lib.extras import need
from advgym.lib.limits import limited

if TYPE_CHECKING:
    from advgym.judge.results import Result
    from advgym.leaderboards.rules.board_tables import Board
    from advgym.leaderboards.rules.phases import PhaseTask
    from advgym.leaderboards.scoring.matrix import Scored
    from advgym.leaderboards.scoring.outcome import Facts

Missing = dict[tuple[str, str, str], str]  # (agent, task, defense) -> why it was not played


class Cell(NamedTuple):
    """One attack to play, in words alone, so that any process can."""

    task: str
    options: dict[str, Any]
    split: str
    episodes: int
    lanes: int
    seed: int
    device: str
    agent: str
    guard: str  # "" for the bare victim
    limit: float = 0.0  # seconds, 0 for any


Place = Callable[[list[Cell]], "Iterable[Result | str]"]


def score(
    board: Annotated[
        str, typer.Argument(help="A board's name, or the path of its TOML.", metavar="BOARD",
                            autocompletion=completion.boards),
    ],
    agent: Annotated[
        list[str], typer.Option("--agent", help="A name, a .py file or a folder. May be repeated.",
                                metavar="NAME|PATH", autocompletion=completion.agents),
    ],
    defense: Annotated[
        list[str] | None, typer.Option("--defense", help="May be repeated: each is a column.",
                                       metavar="NAME[:K=V,K=V]", autocompletion=completion.defenses),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where score.json, index.html and results/ go; may exist.", metavar="DIR")
    ] = None,
    phase: Annotated[str, typer.Option(help="A public phase of the board.", metavar="P")] = "dev",
    device: Device = "cpu",
    engine: Annotated[str, typer.Option(help="Who places the attacks: local or ray.", metavar="E")] = "local",
    limit: Annotated[
        float, typer.Option(min=0, max=10**6, help="Seconds that one attack may take; 0 for any.", metavar="S")
    ] = 0,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Score attacks against defenses on a board, here and unsandboxed: the matrix, JSON and HTML."""
    return run_score(
        board, agent, defense or [], out=out, phase=phase, device=device, engine=engine, limit=limit, as_json=as_json
    )


def run_score(
    name: str, agents: list[str], guards: list[str], *, out: Path | None = None, phase: str = "dev",
    device: str = "cpu", engine: str = "local", limit: float = 0.0, as_json: bool = False,
) -> int:  # fmt: skip
    """Play every agent on every task of a board, bare and behind each defense; print and write the scores.

    Args:
        name: of the board, or the path of its TOML.
        agents, guards: as they are typed: names, paths, `name:k=v` of a defense.
        out: the folder of score.json, index.html and results/.
        limit: seconds of each attack; one that takes more, a defense that hangs, leaves a gap that says so.

    Returns:
        0. Agents that do not fit a task leave a gap in the matrix.

    Raises:
        AdvgymError: for names that do not exist, a hidden phase, and where nothing at all could be played.
    """
    from advgym.cli.score_show import print_scored, write_scored
    from advgym.core.victim import resolve_device
    from advgym.leaderboards.rules.board import load, phase_of
    from advgym.leaderboards.rules.phases import phase_tasks

    if out is not None and out.exists() and not out.is_dir():
        raise AdvgymError(f"{out} is a file; name a folder with --out")
    if out is not None:
        need("jinja2", "the page of scores (there is none without --out)")
    board, place, started = load(name), _engine(engine), time.perf_counter()
    about = phase_of(board, phase)
    if about.hidden:
        raise AdvgymError(f"phase {phase!r} of {board.name} is hidden: score on a public one, such as --phase dev")
    called, labels = _names(agents, guards)
    tasks = phase_tasks(board, phase, None, resolve_device(device))
    seeds = list(range(about.seeds))
    cells = [
        Cell(t.row.id, t.options, t.split, about.samples, board.shards.lanes, seed, device, agent, guard, limit)
        for t in tasks for guard in ("", *guards) for agent in agents for seed in seeds
    ]  # fmt: skip
    keeps(lambda: f"nothing was kept: scores are written when all {len(cells)} attacks were played")
    results, missing = _play(cells, place, called, labels)
    if not results:
        reasons = "\n".join(f"  {a} on {t}: {why}" for (a, t, _), why in missing.items())
        raise AdvgymError(f"nothing could be played:\n{reasons}")
    scored = _sum_up(board, phase, seeds, tasks, labels, list(called.values()), results, missing, device)
    first = [r for r in results if r.seed == seeds[0]]  # the matrices show one run; the scores are means over all
    if as_json:
        emit(scored)
    else:
        print_scored(scored, first, missing)
    if out is not None:
        keeps(lambda: f"all was played; {out} may lack some of its files")
        write_scored(out, scored, results, first, missing, tasks, time.perf_counter() - started)
    return 0


def play_cell(cell: Cell) -> Result | str:
    """The result of one attack, or why it cannot be played."""
    from advgym.cli.values import read_agent, read_defense
    from advgym.judge.run import attack

    entry, defenses = read_agent(cell.agent), [read_defense(cell.guard)] if cell.guard else []
    try:
        with limited(cell.limit, f"{entry.name} on {cell.task}"):
            result = attack(
                cell.task, entry, episodes=cell.episodes, lanes=cell.lanes, device=cell.device, seed=cell.seed,
                split=cell.split, defenses=defenses, **cell.options,
            )  # fmt: skip
    except AdvgymError as error:
        return str(error)
    if any(callable(guard) for guard, _ in defenses):
        result.options["own"] = True  # cannot be found again by name
    return result


def place_local(cells: list[Cell]) -> Iterable[Result | str]:
    """One after the other, in this process."""
    return map(play_cell, cells)


def place_ray(cells: list[Cell]) -> Iterator[Result | str]:
    """Each a task of a Ray cluster ($RAY_ADDRESS, else one started here), given back in their order."""
    import ray

    ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
    play = ray.remote(num_gpus=int(cells[0].device.startswith("cuda")))(play_cell)
    for waiting in [play.remote(cell) for cell in cells]:
        yield ray.get(waiting)


def _engine(name: str) -> Place:
    """What places cells and gives what each gave, in their order."""
    engines: dict[str, Place] = {"local": place_local, "ray": place_ray}
    if name not in engines:
        raise unknown("engine", name, engines)
    if name == "ray":
        need("ray", "--engine ray (--engine local needs nothing more)")
    return engines[name]


def _names(agents: Sequence[str], guards: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """({agent as typed: its name}, {defense as typed: its label}); no two share one."""
    from advgym.cli.values import read_agent, read_defense
    from advgym.leaderboards.scoring.matrix import NONE

    found = [read_defense(text)[0] for text in guards]
    labels = [g if isinstance(g, str) else str(getattr(g, "__name__", "own")) for g in found]
    for what, names in (("agent", [read_agent(text).name for text in agents]), ("defense", [NONE, *labels])):
        twice = [n for n in names if names.count(n) > 1]
        if twice:
            raise AdvgymError(f"{what} {twice[0]!r} is given twice; score it once, or in another run")
    return {text: read_agent(text).name for text in agents}, dict(zip(("", *guards), (NONE, *labels), strict=True))


def _play(
    cells: list[Cell], place: Place, called: dict[str, str], labels: dict[str, str]
) -> tuple[list[Result], Missing]:
    """Results by cell, and what could not be played."""
    from advgym.cli.printing import progress

    results: list[Result] = []
    missing: Missing = {}
    with progress() as bar:
        line = bar.add_task("attacks", total=len(cells), note="")
        for cell, found in zip(cells, place(cells), strict=True):
            if isinstance(found, str):
                missing[called[cell.agent], cell.task, labels[cell.guard]] = found
            else:
                results.append(found)
            bar.update(line, advance=1, note=f"{called[cell.agent]} on {cell.task}")
    return results, missing


def _sum_up(
    board: Board, phase: str, seeds: list[int], tasks: list[PhaseTask], labels: dict[str, str], names: list[str],
    results: list[Result], missing: Missing, device: str,
) -> Scored:  # fmt: skip
    from advgym.leaderboards.rules.board import board_hash
    from advgym.leaderboards.scoring.matrix import Scored, score_attacks, score_defenses
    from advgym.leaderboards.scoring.scorer import scorer_hash
    from advgym.lib.machine import device_name, versions

    facts = _facts(tasks, labels, seeds, results, device)
    return Scored(
        board=board.name, board_hash=board_hash(board), scorer=scorer_hash(board), phase=phase, seeds=seeds,
        attacks=score_attacks(board, results, facts, names),
        defenses=score_defenses(board, results, facts, names, list(labels.values()), seeds),
        missing={f"{a} on {t} ({g})": why for (a, t, g), why in missing.items()},
        device=device_name(device), versions=versions(),
    )  # fmt: skip


def _facts(
    tasks: list[PhaseTask], labels: dict[str, str], seeds: list[int], results: list[Result], device: str
) -> dict[tuple[str, str], Facts]:
    """The facts of every bare task, and of the defended ones that were played."""
    from advgym.cli.values import read_defense
    from advgym.core.task import defend
    from advgym.leaderboards.runs.facts import measure

    played = {(r.task, r.defense) for r in results}
    found: dict[tuple[str, str], Facts] = {}
    for t in tasks:
        for text, label in labels.items():
            if text and (t.row.id, label) not in played:
                continue
            task = defend(t.task, [read_defense(text)]) if text else t.task
            base = found[t.row.id, labels[""]].clean_accuracy if text else 0.0
            found[t.row.id, label] = measure(task, t.split, t.ids, seeds, device=device, undefended=base)
    return found
