"""`advgym export`: a result as files that other programs open, or as a hub's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advgym.cli.printing import err, escape, out


def export(
    result: Annotated[Path, typer.Argument(help="A result file.", metavar="RESULT.JSON")],
    folder: Annotated[Path, typer.Argument(help="A folder that is new or empty.", metavar="DIR")],
    form: Annotated[str, typer.Option("--format", help="Of graphs: npz, graphml or json.", metavar="F")] = "npz",
    successes: Annotated[bool, typer.Option("--successes", help="Successes alone.")] = False,
    hub: Annotated[
        bool, typer.Option("--hub", help="A dataset repository instead: card, parquet, result; successes alone.")
    ] = False,
) -> int:
    """Every sample of a result, clean and perturbed, as texts, PNG, wav or graphs, with an index."""
    err().print(f"export of {escape(result)}: making its task again", soft_wrap=True)
    from advgym.judge.results import load
    from advgym.report.written import export as write

    found = load(result)
    place = found.to_hub_folder(folder) if hub else write(found, folder, only=successes, form=form)
    files = sum(path.is_file() for path in place.rglob("*"))
    out().print(f"{escape(place)}: {files} files; {escape(found)}", soft_wrap=True)
    return 0
