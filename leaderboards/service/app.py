"""The web application: public pages from the record, the API, signed-in pages."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from advgym.errors import AdvgymError
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.service import api, data, desk, guard, intake, openapi, pages, teams
from advgym.leaderboards.service.guard import Guard
from advgym.leaderboards.service.shelf import Book, Shelf, is_open
from advgym.leaderboards.service.show import Pictures
from advgym.leaderboards.store.db import Corrupt, Store
from advgym.leaderboards.store.health import Watch

log = logging.getLogger("advgym")
MB = 1 << 20
UPLOADS = frozenset({"/api/submissions", "/api/disputes", "/me"})
KEPT_BYTES = 64 * MB
TITLES = {
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    409: "Too late",
    413: "Too large",
    429: "Slow down",
}


class Kept:
    """Rendered pages by what they were made from, so that a board is rendered once for each line of its ledger."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self.most, self.size = most, 0
        self._pages: OrderedDict[tuple[str, ...], tuple[bytes, str]] = OrderedDict()
        self._lock = threading.Lock()

    def answer(
        self, request: Request, key: tuple[str, ...], make: Callable[[], str], kind: str = "text/html"
    ) -> Response:
        """The page of a key, made where it is not kept; 304 where the client has it."""
        with self._lock:
            found = self._pages.get(key)
            if found:
                self._pages.move_to_end(key)
        if found is None:
            body = make().encode()
            found = (body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
            self._keep(key, found)
        body, tag = found
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=f"{kind}; charset=utf-8")

    def _keep(self, key: tuple[str, ...], page: tuple[bytes, str]) -> None:
        with self._lock:
            if key not in self._pages:
                self._pages[key] = page
                self.size += len(page[0])
            while self.size > self.most:
                _, (body, _) = self._pages.popitem(last=False)
                self.size -= len(body)


def create_app(store: Store, root: Path, boards: Mapping[str, Board]) -> FastAPI:
    """The application of one server.

    Args:
        store: the queue, tokens and rates.
        root: the data folder: ledger, entries, phases, blobs.
        boards: by name.

    Returns:
        It, with the `Watch` over its record as `state.watch`: whoever runs the application lets that look.
    """
    shelf, kept = Shelf(root, boards, store.clock), Kept()
    watch = Watch(store, root, shelf.doubt)
    pictures = Pictures(shelf)
    app = FastAPI(title="advgym leaderboards", docs_url=None, redoc_url=None, openapi_url=None)
    largest = max([intake.RESULT_MB, *(b.limits.size_mb for b in boards.values())]) * MB + 2 * MB
    app.add_middleware(Guard, uploads=UPLOADS, largest=largest)
    app.state.watch = watch
    app.include_router(api.make_api(store, shelf, watch))
    app.include_router(desk.make_desk(store, shelf, watch))
    app.router.on_shutdown.append(pictures.close)
    _errors(app)
    static = {
        "style.css": ("text/css", pages.stylesheet()),
        "live.js": ("text/javascript", (pages.HERE / "static" / "live.js").read_text(encoding="utf-8")),
        "table.js": ("text/javascript", pages.table_script()),
        "mark.svg": ("image/svg+xml", (pages.HERE / "static" / "mark.svg").read_text(encoding="utf-8")),
    }

    def everything() -> str:
        return " ".join(shelf.stamp(name) + str(is_open(board)) for name, board in sorted(shelf.boards.items()))

    def book_of(name: str) -> tuple[Book, str]:
        if name not in shelf.boards:
            raise HTTPException(404, f"There is no board {name[:60]!r} here.")
        book = shelf.book(name)
        return book, book.stamp + str(is_open(book.board))

    @app.get("/static/{name}")
    def file(request: Request, name: str) -> Response:
        if name not in static:
            raise HTTPException(404, "There is no such file.")
        kind, text = static[name]
        return kept.answer(request, ("static", name), lambda: text, kind)

    @app.get("/")
    def index(request: Request) -> Response:
        return kept.answer(request, ("/", everything()), lambda: pages.index_page(shelf))

    @app.get("/about")
    def about(request: Request) -> Response:
        return kept.answer(request, ("/about", everything()), lambda: pages.about_page(shelf))

    @app.get("/api")
    def calls(request: Request) -> Response:
        return kept.answer(request, ("/api",), lambda: openapi.api_page(app))

    @app.get("/api/openapi.json", include_in_schema=False)
    def described(request: Request) -> Response:
        return api.json(openapi.schema(app))

    @app.get("/teams/{name}")
    def team(request: Request, name: str) -> Response:
        path, stamp = f"/teams/{name}", everything()
        if path not in teams.standings(shelf):
            raise HTTPException(404, "There is no such team here, or nothing of it is scored yet.")
        return kept.answer(request, (path, stamp), lambda: teams.team_page(shelf, path) or "")

    @app.get("/boards/{name}")
    def front(request: Request, name: str) -> Response:
        book, _ = book_of(name)
        return ranking(request, name, *pages.front(book))

    @app.get("/boards/{name}/{phase}/{track}.csv")
    def sheet(request: Request, name: str, phase: str, track: str) -> Response:
        book, stamp = book_of(name)
        if (phase, track) not in book.tables:
            raise HTTPException(404, "There is no such phase or track.")
        make = lambda: data.table_csv(book.tables[phase, track])  # noqa: E731
        return kept.answer(request, ("csv", name, phase, track, stamp), make, "text/csv")

    @app.get("/boards/{name}/{phase}/{track}")
    @app.get("/boards/{name}/{phase}/{track}/{page}")
    def ranking(request: Request, name: str, phase: str, track: str, page: int = 1) -> Response:
        book, stamp = book_of(name)
        if (phase, track) not in book.tables or not 1 <= page <= pages.page_count(book, phase, track):
            raise HTTPException(404, "There is no such phase, track or page.")
        make = lambda: pages.board_page(shelf, book, phase, track, page)  # noqa: E731
        return kept.answer(request, ("board", name, phase, track, str(page), stamp), make)

    @app.get("/entries/{id}")
    def entry(request: Request, id: str) -> Response:
        found = shelf.find(id)
        if found is None:
            raise api.no_entry(shelf, id)
        book, it = found
        who = None if book.published(it.phase) else guard.visitor(request, store)
        if who is not None and who.may("organise"):  # who sees all of an open hidden phase, and whose page is not kept
            page = pages.entry_page(shelf, book, id, shelf.whole(book, id), [], whole=True)
            return HTMLResponse(page, headers={"cache-control": "no-store"})
        shows = pictures.get(book, id)
        key = ("entry", id, book.stamp, str(is_open(book.board)), str(shows is None))
        return kept.answer(request, key, lambda: pages.entry_page(shelf, book, id, it, shows))

    return app


def _errors(app: FastAPI) -> None:
    """Errors as JSON under /api, as a page elsewhere; nothing of the inside is shown."""

    def say(request: Request, code: int, text: str, headers: Mapping[str, str] | None = None, **more: str) -> Response:
        if request.url.path.startswith("/api/"):
            answer = api.problem(code, text, **more)
        else:
            answer = HTMLResponse(pages.problem_page(code, TITLES.get(code, "Something is wrong"), text), code)
        answer.headers.update(headers or {})
        return answer

    @app.exception_handler(StarletteHTTPException)
    def http(request: Request, error: StarletteHTTPException) -> Response:
        text = "There is nothing at this address." if error.detail == "Not Found" else str(error.detail)
        return say(request, error.status_code, text, error.headers)

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> Response:
        return say(request, api.refused_code(error), error.text, reason=error.code, blame=error.blame)

    @app.exception_handler(Corrupt)
    def corrupt(request: Request, error: Corrupt) -> Response:
        log.error("%s", error)  # which names the server's folders
        return say(request, 500, "The server's database is damaged; its organiser reads in the log what to do.")

    @app.exception_handler(AdvgymError)
    def wrong(request: Request, error: AdvgymError) -> Response:
        return say(request, 400, str(error))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        parts = [f"{'.'.join(str(p) for p in e['loc'][1:])}: {e['msg']}" for e in error.errors()[:5]]
        return say(request, 422, "; ".join(parts)[:500])

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> Response:
        return say(
            request, 500, "The server failed. It was written to its log.", reason="internal-error", blame="platform"
        )
