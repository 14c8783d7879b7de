"""The static export: the public pages as plain HTML and JSON, with relative links, for any file host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from advgym.leaderboards.entries.entry import canonical
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.service import data, pages, show, teams
from advgym.leaderboards.service.shelf import Shelf
from advgym.leaderboards.store import record
from advgym.lib.files import write_atomic


def export(root: str | Path, boards: Mapping[str, Board], out: str | Path) -> list[Path]:
    """Write every public page and its data under a folder.

    Args:
        root: the server's data folder.
        boards: by name.
        out: a folder, which may exist.

    Returns:
        The files written.
    """
    shelf, written = Shelf(Path(root), boards), []
    shelf.doubt(record.faults(Path(root), whole=True))  # the pages say what is damaged, and leave it out

    def put(path: str, content: str | bytes) -> None:
        file = Path(out) / pages.file_of(path)
        write_atomic(file, content.encode() if isinstance(content, str) else content)
        written.append(file)

    def put_json(path: str, value: Any) -> None:
        put(path, msgspec.json.encode(value))

    put("/static/style.css", pages.stylesheet())
    put("/static/table.js", pages.table_script())
    put("/static/mark.svg", (pages.HERE / "static" / "mark.svg").read_text(encoding="utf-8"))
    put("/", pages.index_page(shelf, pages.exported("/")))
    put("/about", pages.about_page(shelf, pages.exported("/about")))
    for path in teams.standings(shelf):
        put(path, teams.team_page(shelf, path, pages.exported(path)) or "")
    books = [shelf.book(name) for name in sorted(boards)]
    put_json("/api/boards", [data.board_summary(book) for book in books])
    chain = shelf.chain.told()
    put_json("/api/ledger/head", {"head": chain[-1] if chain else None})
    put("/api/ledger", b"".join(canonical(line) + b"\n" for line in chain))
    for book in books:
        name = book.board.name
        put_json(f"/api/boards/{name}", data.board_data(shelf, book))
        for phase, track in book.tables:
            put(f"/boards/{name}/{phase}/{track}.csv", data.table_csv(book.tables[phase, track]))
            for page in range(1, pages.page_count(book, phase, track) + 1):
                here = pages.board_path(name, phase, track, page)
                put(here, pages.board_page(shelf, book, phase, track, page, pages.exported(here)))
        here = f"/boards/{name}"
        put(here, pages.board_page(shelf, book, *pages.front(book), to=pages.exported(here)))
        for id, entry in book.entries.items():
            shows = show.kept(shelf.root, id) if book.published(entry.phase) else []
            if shows is None:
                shows = show.draw_published(shelf, book, id)
            put(f"/entries/{id}", pages.entry_page(shelf, book, id, entry, shows, pages.exported(f"/entries/{id}")))
            put(f"/api/entries/{id}", shelf.raw(book, id))
            rows = shelf.rows(book, id)
            if rows is not None:
                put(f"/api/entries/{id}.rows", rows)
    return written
