"""A team's page: what it has handed in that is told, on every board."""

from __future__ import annotations

from dataclasses import dataclass

from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.service import pages
from advgym.leaderboards.service.shelf import Placed, Shelf
from advgym.leaderboards.service.views import team_path


@dataclass
class Standing:
    """An entry of a team, where it stands."""

    board: Board
    phase: str
    track: str
    placed: Placed


def standings(shelf: Shelf) -> dict[str, tuple[str, list[Standing]]]:
    """(name, its entries) of every team that has any, by the path of its page; the best ranks first."""
    found: dict[str, tuple[str, list[Standing]]] = {}
    for name in sorted(shelf.boards):
        book = shelf.book(name)
        for (phase, track), table in book.tables.items():
            for p in table:
                if p.entry.team:
                    _, rows = found.setdefault(team_path(p.entry.team), (p.entry.team, []))
                    rows.append(Standing(book.board, phase, track, p))
    for _, rows in found.values():
        rows.sort(key=lambda s: (s.placed.rank is None, s.placed.rank or 0, s.board.name, s.phase, s.track))
    return found


def team_page(shelf: Shelf, path: str, to: pages.Links = pages.served) -> str | None:
    """The page at a path; None where no team has it."""
    found = standings(shelf).get(path)
    if found is None:
        return None
    name, rows = found
    ranked = [s for s in rows if s.placed.rank is not None]
    tiles = [
        (f"{len(rows):,}", "entry" if len(rows) == 1 else "entries"),
        (f"{len({s.board.name for s in rows}):,}", "boards" if len({s.board.name for s in rows}) != 1 else "board"),
        (str(min(s.placed.rank for s in ranked if s.placed.rank)) if ranked else "–", "best rank"),
    ]
    return pages.render(
        "team.html.j2", path, to, name=name, rows=rows, tiles=tiles, head=shelf.head(), board_path=pages.board_path
    )
