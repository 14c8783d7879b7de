"""`advgym augment`: a data set with perturbed or adversarial versions of its samples, to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advgym.cli.printing import err, escape, out, progress
from advgym.cli.shared.command import Device, Seed
from advgym.errors import AdvgymError


def augment(
    data: Annotated[
        str | None,
        typer.Argument(help="A data set's name, a file or folder, or module:object; none for the task's own.",
                       metavar="[DATA]"),
    ] = None,
    place: Annotated[
        Path | None,
        typer.Option("--out", help="A .csv, .jsonl, .parquet or .npz file, or a folder; nothing is written over.",
                     metavar="PATH"),
    ] = None,
    task: Annotated[str | None, typer.Option(help="As `advgym list tasks` names it.", metavar="TASK")] = None,
    agent: Annotated[str, typer.Option(help="random, or an agent that plays a victim.", metavar="NAME")] = "random",
    victim: Annotated[
        str | None, typer.Option(help="Whom an agent plays: a name, transformers:NAME or module:object.", metavar="V")
    ] = None,
    per_sample: Annotated[int, typer.Option(help="Versions of each sample.", min=1, metavar="N")] = 1,
    fraction: Annotated[
        float | None, typer.Option(help="Of the words, that may change: 0.1 is a tenth.", min=0, max=1, metavar="F")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="The originals too.")] = True,
    wins: Annotated[bool, typer.Option("--wins", help="Of an agent, successes alone.")] = False,
    most: Annotated[int | None, typer.Option(help="Samples of the split at most.", min=1, metavar="N")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Of the task or the agent. May be repeated.")
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="S", help="Which samples.")] = None,
    seed: Seed = 0,
    lanes: Annotated[int, typer.Option(help="Samples at once.", min=1, metavar="B")] = 64,
    device: Device = "cpu",
) -> int:  # fmt: skip
    """Perturbed or adversarial versions of every sample of a data set, for training."""
    if place is None:
        raise AdvgymError("say where the samples go: --out FILE.csv (.jsonl, .parquet, .npz), or --out DIR")
    if data is None and task is None:
        raise AdvgymError("say what is augmented: DATA, or --task of a registered data set")
    err().print(f"augment {escape(data or task)}: loading", soft_wrap=True)
    from advgym import registry
    from advgym.cli.values import pair, split_settings, task_keys
    from advgym.evaluations.augment import RANDOM
    from advgym.evaluations.augment import augment as make
    from advgym.evaluations.subject import imported
    from advgym.judge.run import agent_settings
    from advgym.report.augmented import check_place

    check_place(place)
    found: object = data
    if data is not None and ":" in data and not Path(data).exists():
        found = imported(data, "data")
    whom: object = victim
    if victim is not None and victim.partition(":")[0] not in registry.victims():
        whom = imported(victim, "victim")
    own: dict[str, object] = {}
    if agent != RANDOM and task is not None:
        entry, name = registry.agent(agent), registry.task_row(task)[0]
        own, options = split_settings(settings or [], agent, list(agent_settings(entry)), name, task_keys(task))
    else:
        options = dict(pair(text) for text in settings or [])
    with progress() as bar:
        line = bar.add_task("augmenting", total=None, note="")
        made = make(
            found, task=task, victim=whom, agent=agent, per_sample=per_sample, fraction=fraction, keep=keep, wins=wins,
            most=most, seed=seed, split=split, settings=own, lanes=lanes, device=device,
            progress=lambda done, total: bar.update(line, completed=done, total=total), **options,
        )  # fmt: skip
    made.write(place)
    out().print(f"{escape(place)}: {escape(made)}", soft_wrap=True)
    return 0
