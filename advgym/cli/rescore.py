"""`advgym rescore`: a submission file of BODEGA, scored again by a victim of one's own."""

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
    device: Device = "cpu",
    as_json: Json = False,
) -> int:  # fmt: skip
    """Score a BODEGA submission again: originals and answers are ours, claims are compared."""
    from advgym.cli.printing import escape
    from advgym.cli.printing import out as console
    from advgym.core.task import load_victim
    from advgym.core.victim import resolve_device
    from advgym.envs.text.measures.bodega import rescore_files
    from advgym.lib.files import write_atomic

    found = rescore_files(submission, originals, load_victim(victim).on(resolve_device(device)))
    encoded = msgspec.json.format(msgspec.json.encode(found), indent=1)
    if out is not None:
        write_atomic(out, encoded + b"\n")
    if as_json:
        typer.echo(encoded.decode())
        return 1 if found.false_claims or found.altered_originals else 0
    low, high = found.success_ci
    console().print(f"[bold]{escape(str(submission))}[/] on [cyan]{escape(victim)}[/], {found.texts} texts")
    lines = [
        ("success", f"{found.verified} of {found.claimed} claimed ({100 * found.success_rate:.1f} %, 95 % interval "
                    f"{100 * low:.1f} to {100 * high:.1f})"),
        ("meaning kept", f"{100 * found.valid_success_rate:.1f} % succeed with the meaning kept; mean validity of "
                         f"successes {found.kept_mean:.2f}"),
        ("characters kept", f"{found.character_mean:.3f}"),
        ("score", f"{found.score:.4f}  (success x validity x characters)"),
        ("queries", f"{found.queries_claimed:.1f}, as the file says; not checked"),
    ]  # fmt: skip
    for name, text in lines:
        console().print(f"  {name:<16} {text}")
    for what, ids in (("claims that do not hold", found.false_claims), ("originals altered", found.altered_originals)):
        if ids:
            shown = ", ".join(map(str, ids[:10])) + (" ..." if len(ids) > 10 else "")
            console().print(f"  [red]{what}[/]: {len(ids)} (lines {shown}, counted from 0)")
    return 1 if found.false_claims or found.altered_originals else 0
