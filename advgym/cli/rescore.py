"""`advgym rescore`: a result file of somebody else, scored again by a victim of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from advgym.cli.shared.command import Device, Json, VictimName


def rescore(
    submission: Annotated[Path, typer.Argument(help="Four columns: succeeded, num_queries, original_text, "
                                                    "modified_text.", metavar="FILE.TSV")],
    originals: Annotated[Path, typer.Option(help="The organiser's attack.tsv; the file's own are only compared.",
                                            metavar="FILE.TSV")],
    victim: VictimName,
    out: Annotated[Path | None, typer.Option(help="Every line, checked.", metavar="JSON")] = None,
    form: Annotated[str, typer.Option("--format", help="Of the file; InCrediblAE's by default.")] = "bodega",
    device: Device = "cpu",
    as_json: Json = False,
) -> int:  # fmt: skip
    """Score somebody's result file again: originals and answers are ours, claims are compared."""
    from advgym import registry
    from advgym.cli.printing import escape
    from advgym.cli.printing import out as console
    from advgym.core.task import load_victim
    from advgym.core.victim import resolve_device
    from advgym.errors import unknown
    from advgym.lib.files import write_atomic

    formats = registry.rescorers()
    if form not in formats:
        raise unknown("format of result files", form, formats)
    asked = load_victim(victim).on(resolve_device(device))
    found = registry.load(formats[form]["make"])(submission, originals, asked)
    encoded = msgspec.json.format(msgspec.json.encode(found), indent=1)
    doubtful = any(found.doubts.values())
    if out is not None:
        write_atomic(out, encoded + b"\n")
    if as_json:
        typer.echo(encoded.decode())
        return int(doubtful)
    console().print(f"[bold]{escape(str(submission))}[/] on [cyan]{escape(victim)}[/], {found.texts} texts")
    for name, text in found.told.items():
        console().print(f"  {name:<16} {text}")
    for what, ids in found.doubts.items():
        if ids:
            shown = ", ".join(map(str, ids[:10])) + (" ..." if len(ids) > 10 else "")
            console().print(f"  [red]{what}[/]: {len(ids)} (lines {shown}, counted from 0)")
    return int(doubtful)
