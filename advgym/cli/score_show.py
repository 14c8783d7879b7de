"""The scores of a board in the terminal and as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from advgym.cli.printing import err, escape, heat, number, out, percent
from advgym.cli.shared.tables import legend, print_table

if TYPE_CHECKING:
    from advgym.judge.results import Result
    from advgym.leaderboards.rules.phases import PhaseTask
    from advgym.leaderboards.scoring.matrix import Line, Scored

COLUMNS = {  # of each track: (key, heading)
    "attack": (("attempted", "attempted"), ("area", "area"), ("worst_weighted", "worst"), ("invalid_rate", "invalid"),
               ("queries_mean", "queries")),
    "defense": (("attempted", "attempted"), ("clean_accuracy", "clean"), ("worst_weighted", "worst"),
                ("robust_every_seed", "every seed")),
}  # fmt: skip
MEANS = {
    "attack": "success: of the samples attacked, the mean over tasks and seeds, with its interval; attempted: of the "
    "board's tasks; area: under success against queries; worst: the tasks' mean, the worst ones counting most; "
    "invalid: of final perturbations; queries: the mean of a sample",
    "defense": "robust: samples that no attack breaks, with its interval; clean: accuracy without attack; worst: the "
    "tasks' mean, the worst ones counting most; every seed: robust in every run",
}
SIGNS = {"✕": "not eligible for the board's ranking, for the reason below"}
Missing = Mapping[tuple[str, str, str], str]


def print_scored(scored: Scored, results: Sequence[Result], missing: Missing) -> None:
    """The heat maps of one run, then each track's headlines."""
    from advgym.cli.matrix import print_matrix
    from advgym.leaderboards.scoring.matrix import NONE
    from advgym.report.matrix import agents_by_tasks, attack_by_defense

    bare = [r for r in results if r.defense == NONE]
    guarded = [r for r in results if r.defense != NONE]
    shown = {r.task.split("/")[0] for r in guarded}  # there the undefended victim is a column
    rest = [r for r in bare if r.task.split("/")[0] not in shown]
    if rest:
        print_matrix(agents_by_tasks(rest, list(dict.fromkeys(r.task for r in rest)), missing), "agents × tasks")
    for domain in dict.fromkeys(r.task.split("/")[0] for r in guarded):
        print_matrix(attack_by_defense(bare, guarded, domain, missing)[1], f"{domain}: attacks × defenses")
    console = out()
    console.print(f"\n[bold]{escape(scored.board)}[/] [dim]{scored.phase}, seeds {len(scored.seeds)}, "
                  f"{escape(scored.device)}, not sandboxed[/]", soft_wrap=True)  # fmt: skip
    for title, lines in (("attack", scored.attacks), ("defense", scored.defenses)):
        if not lines:
            continue
        console.print()
        print_table(_table(title, lines))
        console.print(f"[dim]{MEANS[title]}[/]")
    if any(not line.eligible for line in (*scored.attacks, *scored.defenses)):
        legend(SIGNS, "✕")
    for line in (*scored.attacks, *scored.defenses):
        notes = [*([] if line.eligible else [f"not eligible: {line.footnote}"]), *line.flags]
        for note in notes:
            console.print(f"[yellow]![/] {escape(line.name)}: {escape(note)}", soft_wrap=True)
    for gap in gaps(missing):
        console.print(f"[dim]– {escape(gap)}[/]", soft_wrap=True)


def gaps(missing: Missing) -> list[str]:
    """What could not be played, each once: of an agent that fits no undefended task nothing is said of defenses."""
    from advgym.leaderboards.scoring.matrix import NONE

    found: dict[tuple[str, str, str], list[str]] = {}
    for (agent, task, guard), why in missing.items():
        if guard == NONE or (agent, task, NONE) not in missing:
            found.setdefault((task, guard, why), []).append(agent)
    return [
        f"{', '.join(agents)} on {task}{'' if guard == NONE else f' behind {guard}'}: {why}"
        for (task, guard, why), agents in found.items()
    ]


def _table(track: str, lines: Sequence[Line]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(track, no_wrap=True, style="cyan")
    table.add_column("success" if track == "attack" else "robust", justify="right")
    table.add_column("95 %", justify="right")
    for _, heading in COLUMNS[track]:
        table.add_column(heading, justify="right")
    for line in lines:
        rate = line.headline.value
        shade = heat(rate if track == "attack" else 1 - rate)
        cells = [
            number(line.columns[key]) if key == "queries_mean" else percent(line.columns[key])
            for key, _ in COLUMNS[track]
        ]
        mark = "" if line.eligible else " [yellow]✕[/]"
        table.add_row(
            escape(line.name) + mark, f"[{shade}]{percent(rate, 1)}[/]",
            f"{100 * line.headline.low:.1f}–{100 * line.headline.high:.1f}", *cells,
        )  # fmt: skip
    return table


def _file(r: Result) -> str:
    return f"{r.task.replace('/', '.')}--{r.agent}--{r.defense}--{r.seed}.json"


def write_scored(
    folder: Path, scored: Scored, results: Sequence[Result], first: Sequence[Result], missing: Missing,
    tasks: Sequence[PhaseTask], seconds: float,
) -> None:  # fmt: skip
    """score.json, results/*.json (one for each attack and seed) and index.html, each replaced in one step."""
    import msgspec

    from advgym.judge.results import save
    from advgym.leaderboards.scoring.matrix import NONE
    from advgym.lib.files import write_atomic
    from advgym.report.page import write_report

    write_atomic(folder / "score.json", msgspec.json.format(msgspec.json.encode(scored), indent=1) + b"\n")
    for r in results:
        save(r, folder / "results" / _file(r))
    bare = [r for r in first if r.defense == NONE]
    head = [
        f"{track} {line.name}: {percent(line.headline.value, 1)} "
        f"({100 * line.headline.low:.1f}–{100 * line.headline.high:.1f})"
        for track, lines in (("Attack", scored.attacks), ("Defense", scored.defenses))
        for line in lines
    ]
    notes = [f"Board {scored.board}, phase {scored.phase}: in the author's own process, not sandboxed.", *head]
    if bare:
        place = folder / "index.html"
        write_report(
            place, bare, {t.row.id: t.task for t in tasks}, title=f"Scores on {scored.board}",
            defended=[r for r in first if r.defense != NONE], missing=missing, notes=notes, seconds=seconds,
            files={(r.agent, r.task, r.defense): f"results/{_file(r)}" for r in first},
        )  # fmt: skip
        err().print(f"report: {escape(place)}", soft_wrap=True)
    err().print(f"scores: {escape(folder / 'score.json')}", soft_wrap=True)
