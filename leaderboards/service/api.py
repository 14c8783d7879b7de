"""The JSON API. Tokens come in the Authorization header, never in a cookie, so no form of another site can use them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, File, Form, HTTPException, Query, Request, Response, UploadFile
from fastapi.responses import StreamingResponse

from advgym.errors import DataError
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.service import data, guard, intake
from advgym.leaderboards.service.feed import Feed
from advgym.leaderboards.service.shelf import Book, Shelf
from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.health import Watch
from advgym.leaderboards.store.submissions import LIVE, Status, cancel, listing, status
from advgym.leaderboards.store.tokens import Token

PER_MINUTE = 60  # calls of a token that change something
READS = 600
LINES = 1000  # of the ledger in one answer


def json(value: Any, code: int = 200) -> Response:
    """JSON by msgspec; bytes are sent as they are."""
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return Response(body, code, media_type="application/json")


def problem(code: int, text: str, reason: str = "", blame: str = "") -> Response:
    """An error in the API's shape."""
    return json({"error": {"reason": reason, "blame": blame, "text": text}}, code)


def refused_code(error: Refused) -> int:
    """The HTTP status of a reason."""
    return {"over-quota": 429, "too-large": 413, "phase-closed": 409}.get(error.code, 400)


def no_entry(shelf: Shelf, id: str) -> HTTPException:
    """Why an entry cannot be shown: the ledger has none, or its file is damaged."""
    if any(f"{id}.json" in shelf.book(name).damaged for name in shelf.boards):
        return HTTPException(500, f"the file of entry {id[:40]} is damaged; restore it from a published copy")
    return HTTPException(404, f"there is no entry {id[:40]!r}")


def make_api(store: Store, shelf: Shelf, watch: Watch) -> APIRouter:
    """The routes under /api."""
    api = APIRouter(prefix="/api")
    steps = shelf.chain.step
    feed = Feed(store, steps)

    def caller(request: Request, scope: str, limit: int = PER_MINUTE) -> Token:
        token = guard.bearer(request, store, scope)
        guard.throttle(store, f"{scope} {token.id}", limit)
        return token

    def boss(request: Request) -> bool:
        """Whether an organiser asks, who sees all; what is public asks for no token."""
        return "authorization" in request.headers and caller(request, "read", READS).may("organise")

    def own(request: Request, id: str) -> tuple[Token, Status]:
        token = caller(request, "read", READS)
        found = status(store, id[:40], full=token.may("organise"), steps=steps)
        if found is None or not (token.may("organise") or found.team == token.team):
            raise HTTPException(404, f"your team has no submission {id[:40]!r}")
        return token, found

    def book_of(name: str) -> Book:
        if name not in shelf.boards:
            raise HTTPException(404, f"there is no board {name[:60]!r}; GET /api/boards lists them")
        return shelf.book(name)

    @api.post("/submissions")
    def hand_in(
        request: Request, archive: Annotated[UploadFile, File()], board: Annotated[str, Form(max_length=100)],
        phase: Annotated[str, Form(max_length=40)] = "", key: Annotated[str, Form(max_length=100)] = "",
    ) -> Response:  # fmt: skip
        """Hand in a submission: a tar, tar.gz or zip of its folder. A key makes it safe to ask twice."""
        token = caller(request, "submit")
        if not token.team:
            raise HTTPException(403, "this token names no team; make one with --team")
        id = intake.take(store, shelf, token.team, board, phase, archive.file.read(), key)
        return json(shown(status(store, id, steps=steps)), 201)

    @api.get("/submissions")
    def mine(request: Request) -> Response:
        """The submissions of your team."""
        token = caller(request, "read", READS)
        if not token.team:
            raise HTTPException(403, "this token names no team; make one with --team")
        return json([shown(s) for s in listing(store, team=token.team, steps=steps)])

    @api.get("/submissions/{id}")
    def see(request: Request, id: str) -> Response:
        """One submission: its state, progress, outcome."""
        return json(shown(own(request, id)[1]))

    @api.delete("/submissions/{id}")
    def withdraw(request: Request, id: str) -> Response:
        """Cancel a submission that waits or runs."""
        token, found = own(request, id)
        if not token.may("submit"):
            raise HTTPException(403, "this token may not submit, so it cannot cancel")
        if not cancel(store, found.id, "" if token.may("organise") else token.team):
            how = "about to be over" if found.state in LIVE else f"over already: {found.state}"
            raise HTTPException(409, f"{found.id} is {how}")
        return json(shown(status(store, found.id, full=token.may("organise"), steps=steps)))

    @api.get("/submissions/{id}/events")
    def events(id: str) -> Response:
        """A submission's progress as server-sent events."""
        if status(store, id[:40], steps=steps) is None:
            raise HTTPException(404, "no such submission")
        if feed.full():
            raise HTTPException(503, "too many streams are open; load the page again instead", {"retry-after": "10"})
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(feed.events(id[:40]), media_type="text/event-stream", headers=headers)

    @api.post("/disputes")
    def dispute(
        request: Request, result: Annotated[UploadFile, File()], against: Annotated[str, Form(max_length=40)]
    ) -> Response:
        """Dispute an entry by a result file whose perturbations lower it; they are judged again first."""
        token = caller(request, "dispute", 10)
        raw = result.file.read(intake.RESULT_MB * (1 << 20) + 1)
        if len(raw) > intake.RESULT_MB * (1 << 20):
            raise HTTPException(413, f"a result file has at most {intake.RESULT_MB} MB here")
        id = intake.take_dispute(store, shelf, token.team or "organiser", against, raw)
        return json(shown(status(store, id, steps=steps)), 201)

    @api.get("/boards")
    def boards() -> Response:
        """Every board."""
        return json([data.board_summary(shelf.book(name)) for name in sorted(shelf.boards)])

    @api.get("/boards/{name}")
    def board(name: str) -> Response:
        """All that a board's pages are made of: rules, phases, rankings."""
        return json(data.board_data(shelf, book_of(name)))

    @api.get("/entries/{id}.rows")
    def rows(id: str) -> Response:
        """Every judged sample of an entry, once its phase is public."""
        book = entry_book(id)
        raw = shelf.rows(book, id)
        if raw is None and book.published(book.entries[id].phase):
            raise HTTPException(500, f"the rows of entry {id} are damaged; restore them from a published copy")
        if raw is None:
            raise HTTPException(404, "the rows of a hidden phase are published when it closes")
        return json(raw)

    @api.get("/entries/{id}")
    def entry(request: Request, id: str) -> Response:
        """One entry, as its hash in the ledger has it."""
        try:
            return json(shelf.file(entry_book(id), id) if boss(request) else shelf.raw(entry_book(id), id))
        except DataError as error:
            raise HTTPException(500, str(error)) from None

    def entry_book(id: str) -> Book:
        found = shelf.find(id)
        if found is None:
            raise no_entry(shelf, id)
        return found[0]

    @api.get("/organise/record")
    def health(request: Request) -> Response:
        """For organisers: what the watch over the record found."""
        caller(request, "organise", READS)
        return json(watch.health)

    @api.get("/ledger")
    def lines(start: Annotated[int, Query(ge=0)] = 0) -> Response:
        """Lines of the ledger, a thousand at a time."""
        if shelf.head() == "damaged":
            raise HTTPException(500, "the ledger is damaged; restore it from a published copy")
        found = shelf.chain.told()[start : start + LINES]
        return json({"lines": found, "next": start + len(found) if len(found) == LINES else None})

    @api.get("/ledger/head")
    def head() -> Response:
        """The last line of the ledger."""
        if shelf.head() == "damaged":
            raise HTTPException(500, "the ledger is damaged; restore it from a published copy")
        lines = shelf.chain.told()
        return json({"head": lines[-1] if lines else None})

    return api


def shown(s: Status | None) -> dict[str, Any]:
    """A status as JSON data, with its page."""
    assert s is not None  # it was there a moment ago, and nothing deletes submissions
    return {**msgspec.to_builtins(s), "url": f"/submissions/{s.id}"}
