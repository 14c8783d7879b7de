"""`advgym attack` and `advgym verify`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from advgym.cli.printing import column_lines, err, escape, heat, number, out, percent, progress, say_notes, spark
from advgym.cli.pulse import keeps
from advgym.cli.shared.tables import emit, print_table
from advgym.cli.values import read_agent, read_defense, split_settings, task_keys, value
from advgym.errors import AdvgymError
from advgym.lib.extras import need

if TYPE_CHECKING:
    from advgym.core.task import Task
    from advgym.judge.results import Result


def run_attack(
    task: str,
    agent: str,
    pairs: list[str],
    guards: list[str],
    *,
    episodes: int,
    lanes: int,
    device: str,
    seed: int,
    split: str,
    out: Path | None,
    show: int,
    report: Path | None,
    measures: list[str] | None = None,
    target: str = "",
    clean: int | None = None,
    audio: Path | None = None,
    as_json: bool = False,
) -> int:
    """Attack, print the summary, write what was asked for; 1 where the agent crashed, or did nothing at all."""
    from advgym import registry
    from advgym.judge.run import agent_settings, attack

    entry = read_agent(agent)
    name = registry.task_row(task)[0]
    settings, options = split_settings(
        pairs, entry.name, list(agent_settings(entry)), name, [*task_keys(task), "targets"]
    )
    targets = read_targets(options.pop("targets", None), target)
    defenses = [read_defense(text) for text in guards]
    for path in (out, report):
        _check_place(path)
    if report is not None:
        need("jinja2", "--report")
    if audio is not None:
        _check_saves(name, audio)
    began = time.time()
    with progress() as bar:
        line = bar.add_task(f"{entry.name} on {name}", total=None, note="clean pass")

        def tick(done: int, total: int, wins: int) -> None:
            bar.update(line, completed=done, total=total, note=f"{wins} succeeded")

        keeps(lambda: _kept(out, began))
        result = attack(
            task,
            entry,
            episodes=episodes,
            lanes=lanes,
            device=device,
            seed=seed,
            split=split,
            settings=settings,
            defenses=defenses,
            out=out,
            progress=tick,
            measures=read_measures(measures or []),
            targets=targets,
            clean=clean,
            told=say_most,
            **options,
        )
    if any(callable(guard) for guard, _ in defenses):
        result.options["own"] = True  # a defense of the caller's own cannot be found again by name
        if out is not None:
            from advgym.judge.results import save

            save(result, out)
    if as_json:
        emit(result)
    else:
        print_result(result)
    if (show and not as_json) or report or audio:
        made = _rebuilt(result, defenses, options)
        if show and not as_json:
            print_examples(result, made, show)
        if report:
            from advgym.report.page import write_report

            key = (result.agent, result.task, result.defense)
            beside = {key: os.path.relpath(out, Path(report).parent)} if out else {}
            write_report(report, [result], {result.task: made}, title=f"{result.agent} on {result.task}", files=beside)
        if audio:
            save_pairs(audio, result, made)
    for what, path in (("result", out), ("report", report), ("audio", audio)):
        if path is not None:
            err().print(f"{what}: {escape(path)}", soft_wrap=True)
    return 1 if say_unplayed(result) else 0


def say_most(most: dict[str, int]) -> None:
    """How many inputs the victim will be asked about at most, and what for."""
    parts = ", ".join(f"{what} {count:,}" for what, count in most.items())
    total = sum(most.values())
    err().print(f"[dim]the victim will be asked about at most {total:,} inputs: {parts}[/]", soft_wrap=True)


def read_measures(pairs: list[str]) -> dict[str, str]:
    """`--measure COLUMN=MODEL` as a mapping."""
    split = [pair.partition("=") for pair in pairs]
    for (name, _, model), pair in zip(split, pairs, strict=True):
        if not name or not model:
            raise AdvgymError(f"--measure takes COLUMN=MODEL, such as perplexity=gpt2, not {pair!r}")
    return {name: model for name, _, model in split}


def read_targets(several: Any, one: str) -> Any:
    """`--set targets=[...]`, one per sample, or `--target X`, the same for all."""
    if several is not None and one:
        raise AdvgymError("--target is one for all samples, --set targets=[...] one for each: give one of the two")
    return {None: value(one)} if one else several


def _check_place(path: Path | None) -> None:
    if path is not None and path.is_dir():
        raise AdvgymError(f"{path} is a folder; name a file in it")


def _check_saves(name: str, place: Path) -> None:
    """Refuse to save the clips of what has none, before anything is attacked."""
    from advgym import registry

    if name.split("/")[0] != "speech":
        able = [task for task in sorted(registry.tasks()) if task.startswith("speech/")]
        raise AdvgymError(f"--save-audio writes clips, and {name} has none; tasks that have: {', '.join(able)}")
    if place.is_file():
        raise AdvgymError(f"{place} is a file; --save-audio takes a folder")


def save_pairs(place: Path, r: Result, task: Task) -> None:
    """What each final perturbation made of its sample, as files by the task."""
    from advgym.report.examples import forms

    if task.save is None:
        raise AdvgymError(f"{task.name} does not say how its samples are saved")
    for start in range(0, len(r.samples), 64):
        part = r.samples[start : start + 64]
        batch, form = forms(task, r.split, part)
        for i in range(len(part)):
            task.save(place, batch, i, form[i])


def _kept(path: Path | None, began: float) -> str:
    """What of an interrupted attack is on disk."""
    from advgym.judge.checkpoint import Checkpoint, finished

    if path is None:
        return "nothing was kept (with --out the same command would go on)"
    if path.is_file() and path.stat().st_mtime >= began - 1:
        return f"the attack was over; its result is in {path}"
    rows = finished(partial := Checkpoint.place(path))
    if not rows:
        return "no batch was finished, so nothing was kept"
    return f"{rows} finished samples are in {partial}; the same command goes on from them"


def _rebuilt(result: Result, defenses: list[Any], options: dict[str, Any]) -> Task:
    from advgym.core.task import defend, make_task

    return defend(make_task(result.task, **{**options, "knowledge": result.threat["knowledge"]}), defenses)


def unplayed(result: Result) -> str:
    """Why the figures are none of an attack that was played to its end; "" where they are."""
    from advgym.judge.results import IDLE

    if not result.attacked:
        return f"none of {result.episodes} samples was attacked, since the victim has none of them right"
    crashed = sum(s.reason == "crashed" for s in result.samples)
    if crashed:
        return f"the agent crashed on {crashed} of {result.attacked} samples, which shows no robustness"
    return next((f"{flag}, which shows no robustness" for flag in result.flags if flag == IDLE), "")


def say_unplayed(result: Result) -> bool:
    """Say on stderr why the figures are none; whether that is so."""
    why = unplayed(result)
    if why:
        how = "; ".join(flag for flag in result.flags if flag.startswith("agent crashed"))
        err().print(f"[bold red]advgym:[/] {escape(why + (': ' + how if how else ''))}", soft_wrap=True)
    return bool(why)


# -- the summary -----------------------------------------------------------------------------------------------------
def print_result(r: Result) -> None:
    """One row for the agent and one for the control, then what stands behind them."""
    threat = r.threat
    limit = " ".join(f"{k}={v}" for k, v in threat["constraint"].items())
    head = (
        f"[bold]{escape(r.task)}[/]  victim {escape(r.victim['name'])}"
        + (f" behind [bold]{escape(r.defense)}[/]" if r.defense != "none" else "")
        + f"\n[dim]{threat['knowledge']}, {threat['goal']}, {escape(limit)}, {threat['queries']} queries, "
        f"{threat['gradients']} gradients; split {r.split}, seed {r.seed}, {escape(r.device)}[/]"
    )
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("agent", "success", "95 %", "queries", "gradients", "distance"):
        table.add_column(name, justify="left" if name == "agent" else "right", no_wrap=True)
    low, high = r.success_ci
    table.add_row(
        f"[cyan]{escape(r.agent)}[/]",
        f"[{heat(r.success_rate)}]{percent(r.success_rate, 1)}[/]" if not unplayed(r) else "not known",
        f"{100 * low:.0f}–{100 * high:.0f}" if not unplayed(r) else "",
        f"{number(r.queries_mean)} [dim]({number(r.queries_median)})[/]",
        number(r.gradients_mean),
        number(r.distance_median),
    )
    table.add_row("[dim]random control[/]", f"[dim]{percent(r.control_rate, 1)}[/]", "", "", "", "")
    console = out()
    console.print(head, soft_wrap=True)
    console.print()
    print_table(table)
    robust = "not known" if unplayed(r) else percent(r.robust_accuracy, 1)
    console.print(
        f"\nclean accuracy [bold]{percent(r.clean_accuracy, 1)}[/] {clean_over(r)}, robust accuracy "
        f"[bold]{robust}[/]; {r.attacked} of {r.episodes} samples attacked"
        + (f", {percent(r.invalid_rate, 1)} of final perturbations invalid" if r.invalid_rate else "")
    )
    for line in column_lines(r):
        console.print(escape(line), soft_wrap=True)
    if r.curve:
        console.print(f"success at q queries  {spark(r.curve)}  [dim]q = {r.curve[0][0]} … {r.curve[-1][0]}[/]")
    if r.success_at:
        marks = ", ".join(f"{percent(rate)} at {q}" for q, rate in r.success_at)
        console.print(f"[dim]within budgets: {marks} queries[/]")
    if r.asked:
        parts = ", ".join(f"{what} {count:,}" for what, count in r.asked.items())
        console.print(f"[dim]the victim was asked about {sum(r.asked.values()):,} inputs: {parts}[/]", soft_wrap=True)
    for flag in r.flags:
        console.print(f"[yellow]![/] {escape(flag)}", soft_wrap=True)
    console.print(f"[dim]{r.seconds:.1f} s; queries: mean (median); distance: median of the successes[/]")


def clean_over(r: Result) -> str:
    """What clean accuracy is over: the whole split, or so many samples of it, with their interval."""
    if r.clean_of is None or r.clean_ci is None or not r.clean_size or r.clean_of == r.clean_size:
        return "(whole split)"
    low, high = r.clean_ci
    return f"(over {r.clean_of:,} of {r.clean_size:,} samples, {100 * low:.0f}–{100 * high:.0f} %)"


def print_examples(r: Result, task: Task, many: int) -> None:
    """The first successes, a line each (failures where there are none)."""
    wins = [s for s in r.samples if s.success]
    shown = (wins or r.samples)[:many]
    out().print(f"\n[bold]{'examples' if wins else 'no success; what was tried'}[/]")
    for sample, text in zip(shown, example_lines(r, task, shown), strict=True):
        out().print(f"[cyan]#{sample.id}[/] {escape(text)}", soft_wrap=True)


def example_lines(r: Result, task: Task, samples: list[Any]) -> list[str]:
    """`before -> after   what was done`, plain text."""
    from advgym.clients.render import ask
    from advgym.report.examples import forms, words

    lines = []
    batch, form = forms(task, r.split, samples)
    for i, sample in enumerate(samples):
        before, after = words(task, sample.before), words(task, sample.after)
        done = (
            ask(task, task.line, batch, i, form[i]) if task.line is not None else f"distance {number(sample.distance)}"
        )
        told = f"{before} -> {after}"
        lines.append(done if told in done else f"{told}   {done}")
    return lines


# -- verify ----------------------------------------------------------------------------------------------------------
def run_verify(path: Path, device: str, *, as_json: bool = False) -> int:
    """0: the file is true; 1: it is not; unreadable files raise. An entry or a data folder is checked as such."""
    from advgym.cli.audit import is_audit, run_verify_audit
    from advgym.cli.record import is_entry, told, verify_entry_file, verify_record

    if path.is_dir() and not (path / "audit.json").is_file():
        return verify_record(path, as_json)
    path = path / "audit.json" if path.is_dir() else path
    if is_audit(path):
        return run_verify_audit(path, device, as_json)
    if is_entry(path):
        return verify_entry_file(path, device, as_json)
    from advgym.judge import contract
    from advgym.judge.results import load
    from advgym.judge.verdict import verify

    result = load(path)
    wrong = verify(result, device=device)
    notes = contract.notes(result.contract, bool(wrong))
    if as_json:
        return told(f"{result.agent} on {result.task} behind {result.defense}", wrong, notes, as_json=True)
    name = f"{result.agent} on {result.task}" + (f" behind {result.defense}" if result.defense != "none" else "")
    if not wrong:
        out().print(
            f"[green]true[/] {escape(path)}: {escape(name)}, all {len(result.samples)} samples "
            f"re-applied and re-scored, success rate {percent(result.success_rate, 1)}",
            soft_wrap=True,
        )
        say_notes(notes)
        return 0
    out().print(
        f"[red]false[/] {escape(path)}: {escape(name)}, {len(wrong)} disagreement{'s' * (len(wrong) > 1)}",
        soft_wrap=True,
    )
    for line in wrong:
        out().print(f"  {escape(line)}", soft_wrap=True)
    say_notes(notes)
    return 1
