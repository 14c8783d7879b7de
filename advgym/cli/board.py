"""`advgym board`: check, open, close and list leaderboards; `advgym new board`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from advgym.cli.shared.command import Device, Json, Typer
from advgym.cli.shared.completion import boards as boards_known
from advgym.cli.shared.tables import emit

board = Typer(
    help="Leaderboards: check a board's file, open and close its phases.", no_args_is_help=True, rich_markup_mode="rich"
)
Data = Annotated[Path, typer.Option("--data", help="The server's data folder.", metavar="DIR")]
Boards = Annotated[Path | None, typer.Option("--boards", help="A folder of boards; else ADVGYM_BOARDS.", metavar="DIR")]
Name = Annotated[str, typer.Argument(help="A board's name, or the path of its TOML.", metavar="BOARD",
                                        autocompletion=boards_known)]  # fmt: skip
Phase = Annotated[str, typer.Option("--phase", help="dev, test or final.", metavar="P")]
HERE = Path("advgym-data")


@board.command("check")
def check(
    names: Annotated[list[str], typer.Argument(help="Names, or paths of TOML files.", metavar="BOARD...")],
    boards: Boards = None,
    as_json: Json = False,
) -> int:
    """Say everything that is wrong with a board; exit 1 where something is."""
    from advgym.cli.printing import escape, out
    from advgym.leaderboards.rules.board_check import check as problems_of

    found = {name: problems_of(name, boards) for name in names}
    wrong = any(found.values())
    if as_json:
        emit([{"board": name, "problems": problems} for name, problems in found.items()])
        return 1 if wrong else 0
    for name, problems in found.items():
        verdict = f"[red]{len(problems)} problem{'s' * (len(problems) > 1)}[/]" if problems else "[green]in order[/]"
        out().print(f"[bold]{escape(name)}[/]: {verdict}", soft_wrap=True)
        for problem in problems:
            out().print(f"  {escape(problem)}", soft_wrap=True, highlight=False)
    return 1 if wrong else 0


@board.command("open")
def open_(
    name: Name,
    phase: Phase,
    data: Data = HERE,
    boards: Boards = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> int:
    """Open a phase: draw its secret, train its hidden victims, publish the commitment."""
    from advgym.cli.printing import escape, out
    from advgym.core.victim import resolve_device
    from advgym.leaderboards.rules.board import load
    from advgym.leaderboards.rules.opening import open_phase

    card = open_phase(load(name, boards), phase, data, resolve_device(device))
    if as_json:
        emit(card)
        return 0
    mark = "  [yellow]public-data[/]" if card.public_data else ""
    out().print(f"[bold]{escape(card.board)}[/] {card.phase} is open{mark}", soft_wrap=True)
    out().print(f"commitment  {card.commitment}", soft_wrap=True, highlight=False)
    for task, victim in card.victims.items():
        out().print(
            f"{escape(task)}: {escape(victim.name)} trained, {victim.clean_accuracy:.1%} of its samples right, "
            f"weights {victim.weights[:12]}",
            soft_wrap=True,
            highlight=False,
        )
    return 0


@board.command("close")
def close(name: Name, phase: Phase, data: Data = HERE, boards: Boards = None, as_json: Json = False) -> int:
    """Close a phase: publish its secret and the weights of its victims."""
    from advgym.cli.printing import escape, out
    from advgym.leaderboards.rules.board import load
    from advgym.leaderboards.rules.opening import close_phase
    from advgym.leaderboards.rules.phase_cards import card_path

    card = close_phase(load(name, boards), phase, data)
    if as_json:
        emit(card)
        return 0
    where = card_path(data, card.board, card.phase)
    out().print(f"[bold]{escape(card.board)}[/] {card.phase} is closed; its secret and recipes are in {escape(where)}",
                soft_wrap=True)  # fmt: skip
    return 0


@board.command("list")
def list_(boards: Boards = None, as_json: Json = False) -> int:
    """The boards that there are, as `advgym list boards`."""
    from advgym.cli.listing import board_rows, show_rows

    return show_rows("boards", board_rows(boards), "*", as_json=as_json)


def new_board(
    path: Annotated[Path, typer.Argument(help="A file NAME.toml that does not exist.", metavar="PATH")],
) -> int:
    """A board of your own: a TOML file that passes `advgym board check`."""
    from advgym.cli.new import TEMPLATES
    from advgym.cli.printing import escape, out
    from advgym.errors import AdvgymError, DataError

    path = path if path.suffix == ".toml" else path.with_name(f"{path.name}.toml")
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40].strip("-")
    if path.exists():
        raise AdvgymError(f"{path} exists; name another file")
    if name != path.stem:
        raise AdvgymError(
            f"a board is named with a-z, 0-9 and -: {path.with_name((name or 'mine') + '.toml')} would do"
        )
    text = (TEMPLATES / "board.toml.txt").read_text(encoding="utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("@NAME@", name).replace("@PATH@", path.as_posix()), encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {error.filename or path}: {error.strerror}") from None
    out().print(f"wrote {escape(path)}", soft_wrap=True)
    out().print(f"next:  [cyan]advgym board check {escape(path)}[/]", soft_wrap=True)
    return 0
