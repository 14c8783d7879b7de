"""Pages as text, from what the record holds: the same for the server and for the static export."""

from __future__ import annotations

import datetime as dt
import posixpath
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from advgym import registry
from advgym.judge import contract
from advgym.leaderboards.entries.entry import Entry
from advgym.leaderboards.rules import reasons
from advgym.leaderboards.rules.board import public_data
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.service import views
from advgym.leaderboards.service.shelf import Book, Placed, Shelf, is_open
from advgym.leaderboards.service.told import SENTENCE

HERE = Path(__file__).parent
Links = Callable[[str], str]
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def served(path: str) -> str:
    """Links of the server: the paths themselves."""
    return path


def exported(here: str) -> Links:
    """Links of the static export: relative ones, from the page at `here`.

    >>> exported("/boards/image/dev/attack")("/entries/0123")
    '../../../entries/0123.html'
    """
    folder = posixpath.dirname(file_of(here)) or "."
    return lambda path: posixpath.relpath(file_of(path), folder)


def file_of(path: str) -> str:
    """The file that a path of the server becomes in the export.

    >>> file_of("/"), file_of("/api/entries/0123"), file_of("/boards/image/dev/attack.csv")
    ('index.html', 'api/entries/0123.json', 'boards/image/dev/attack.csv')
    """
    name = path.strip("/")
    if path == "/api/ledger":
        return "api/ledger.jsonl"
    if name.startswith("api/"):
        return f"{name}.json"
    return "index.html" if not name else name if name.startswith("static/") or name.endswith(".csv") else f"{name}.html"


def when(value: Any) -> str:
    """A time for people, UTC: of ISO text, of epoch seconds, or of a datetime.

    >>> when("2026-11-03T09:30:00Z"), when(0), when("")
    ('3 Nov 2026, 09:30', '–', '–')
    """
    if not value:
        return "–"
    try:
        at = (
            dt.datetime.fromtimestamp(value, dt.UTC)
            if isinstance(value, int | float)
            else value
            if isinstance(value, dt.datetime)
            else dt.datetime.fromisoformat(value)
        )
    except ValueError:
        return str(value)
    return f"{at.day} {MONTHS[at.month - 1]} {at.year}, {at:%H:%M}"


def percent(value: float, digits: int = 0) -> str:
    """A fraction as per cent, without the sign."""
    return f"{100 * value:.{digits}f}"


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates; everything that is filled in is escaped."""
    env = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    filters: dict[str, Callable[..., Any]] = {
        "when": when,
        "percent": percent,
        "place": views.place,
        "lowered": views.lowered,
        "beside": views.beside,
        "contract": contract.number,
        "team_path": views.team_path,
    }
    env.filters |= filters
    return env


@lru_cache(maxsize=1)
def stylesheet() -> str:
    """The one CSS file: the report's, and what boards add to it."""
    report = (registry.HOME / "templates" / "report.css").read_text(encoding="utf-8")
    return report + (HERE / "static" / "board.css").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def table_script() -> str:
    """What orders and narrows down tables, the report's own."""
    return (registry.HOME / "templates" / "table.js").read_text(encoding="utf-8")


def render(template: str, here: str, to: Links = served, **values: Any) -> str:
    """One page. `here` is its path on the server; `to` makes its links."""
    return environment().get_template(template).render(here=here, to=to, static=to is not served, **values)


def index_page(shelf: Shelf, to: Links = served) -> str:
    """Every board, with its leader."""
    books = [shelf.book(name) for name in sorted(shelf.boards)]
    cards = []
    for book in books:
        phase, track = front(book)
        cards.append((book, phase, [(t, leader(book, phase, t)) for t in book.board.tracks], track))
    return render(
        "index.html.j2", "/", to, cards=cards, head=shelf.head(), is_open=is_open, domains=domains,
        fresh=not any(book.entries for book in books),
    )  # fmt: skip


def front(book: Book) -> tuple[str, str]:
    """The phase and track that a board's page opens with: the latest phase that has entries."""
    board = book.board
    for phase in reversed(board.phases):
        if any(book.tables[phase, track] for track in board.tracks):
            return phase, next(t for t in board.tracks if book.tables[phase, t])
    return next(iter(board.phases)), board.tracks[0]


def leader(book: Book, phase: str, track: str) -> Placed | None:
    """The first of a ranking."""
    return next((p for p in book.tables[phase, track] if p.rank is not None), None)


def domains(board: Board) -> list[str]:
    """The domains of a board's tasks."""
    return list(dict.fromkeys(t.id.split("/")[0] for t in board.tasks))


def board_path(board: str, phase: str, track: str, page: int = 1) -> str:
    """Where a ranking is."""
    return f"/boards/{board}/{phase}/{track}" + (f"/{page}" if page > 1 else "")


def page_count(book: Book, phase: str, track: str) -> int:
    """How many pages a ranking has."""
    return max(1, -(-len(book.tables[phase, track]) // views.PER_PAGE))


def board_page(shelf: Shelf, book: Book, phase: str, track: str, page: int = 1, to: Links = served) -> str:
    """A board's ranking in one phase and track, with its heat map, curves, rules and commitments."""
    board, table = book.board, book.tables[phase, track]
    start = (page - 1) * views.PER_PAGE
    shown = table[start : start + views.PER_PAGE]
    columns: list[Placed] = []
    if track == "attack":
        matrix = views.heat_attack(board, shown)
    else:
        matrix, columns = views.heat_defense(board, shown)
    return render(
        "board.html.j2", board_path(board.name, phase, track, page), to, book=book, board=board, phase=phase,
        track=track, ranked=[p for p in shown if p.rank is not None], unranked=[p for p in shown if p.rank is None],
        tiles=views.tiles(book, table, track), matrix=matrix, columns=columns,
        figures=views.figures(board, shown, track), flags=views.flags(shown), head=shelf.head(), opened=is_open(board),
        public_data=public_data, path=board_path, page=page, pages=page_count(book, phase, track), start=start,
        rows=board_rows(board), cap=views.HEAT, besides=any(views.beside(p.entry) for p in table),
        withheld=withheld(book, phase),
    )  # fmt: skip


def withheld(book: Book, phase: str) -> str:
    """Why the pages of a phase tell no more than scores; "" where they tell all."""
    return "" if book.published(phase) else SENTENCE


def board_rows(board: Board) -> list[tuple[Any, str, str]]:
    """(task, title, constraint) of a board's tasks; a task that is not installed here has no title."""
    out = []
    known = registry.tasks()
    for task in board.tasks:
        row = known.get(task.id, {})
        limit = {**dict(row.get("constraint", {})), **task.constraint}
        out.append((task, str(row.get("title", "")), ", ".join(f"{k} = {v}" for k, v in limit.items())))
    return out


def entry_page(
    shelf: Shelf,
    book: Book,
    id: str,
    entry: Entry,
    shows: Sequence[tuple[str, Sequence[Any]]] | None,
    to: Links = served,
    *,
    whole: bool = False,
) -> str:
    """One entry: scores, curves, examples (see `show`; None while they are being drawn), hashes, how to check it.

    Args:
        whole: show all of it, also where its phase is hidden and open: to the organiser.
    """
    table = book.tables.get((entry.phase, entry.track), [])
    placed = next((p for p in table if p.id == id), Placed(id, entry, None))
    hashes = [
        ("Entry", id), ("Submission", entry.submission), ("Code", entry.code), ("Board", entry.board_hash),
        ("Scorer", entry.scorer), ("Rows", entry.rows), ("Transcript", entry.transcript),
    ]  # fmt: skip
    return render(
        "entry.html.j2", f"/entries/{id}", to, book=book, board=book.board, id=id, entry=entry, placed=placed,
        figures=views.own_figures(entry), shows=shows, hashes=[(k, v) for k, v in hashes if v], head=shelf.head(),
        published=book.published(entry.phase), lowered=book.lowered.get(id, ""), path=board_path,
        endings=[(s, endings(s.reasons)) for s in entry.tasks if s.reasons], beside=views.beside(entry),
        measured=views.measured(entry), made_with=views.made_with(entry),
        withheld="" if whole else withheld(book, entry.phase), spots=views.spots(entry),
    )  # fmt: skip


def endings(counts: dict[str, int]) -> list[tuple[str, int, float]]:
    """(reason, count, share) of how runs ended, the most frequent first."""
    total = sum(counts.values()) or 1
    return [(name, n, n / total) for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def about_page(shelf: Shelf, to: Links = served) -> str:
    """How it works, and every reason code."""
    return render(
        "about.html.j2", "/about", to, reasons=reasons.table(), head=shelf.head(), boards=sorted(shelf.boards)
    )


def problem_page(status: int, title: str, text: str) -> str:
    """What went wrong, and where to go."""
    return render("problem.html.j2", "", served, status=status, title=title, text=text)


def plain(value: Any) -> Any:
    """Structs as JSON data for templates."""
    return msgspec.to_builtins(value)
