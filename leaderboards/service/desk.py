"""Signed-in pages and their forms: a team's submissions, the organiser's view. Every form carries a CSRF field."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse

from advgym.errors import AdvgymError
from advgym.leaderboards.service import feed, guard, intake, pages
from advgym.leaderboards.service.shelf import Shelf, is_open
from advgym.leaderboards.store import jobs, ledger, record, submissions, tokens
from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.health import Watch

Text = Annotated[str, Form(max_length=600)]
LISTED = 200


def make_desk(store: Store, shelf: Shelf, watch: Watch) -> APIRouter:
    """The routes of the pages that need a token, and of submissions."""
    desk = APIRouter()

    @desk.get("/login")
    def login() -> Response:
        return page("login.html.j2", "/login", problem="")

    @desk.post("/login")
    def sign_in(request: Request, token: Text = "") -> Response:
        guard.own_page(request)
        guard.throttle(store, f"login {guard.address(request)}", 20)
        found = tokens.find_token(store, token.strip())
        if found is None or not found.may("read"):
            why = "This token is not known, has ended, or is a worker's."
            return page("login.html.j2", "/login", 401, problem=why)
        answer = RedirectResponse("/organise" if found.may("organise") else "/me", 303)
        answer.set_cookie(
            guard.COOKIE, token.strip(), max_age=guard.SESSION_S, httponly=True, samesite="lax",
            secure=request.url.scheme == "https", path="/",
        )  # fmt: skip
        return answer

    @desk.post("/logout")
    def sign_out(request: Request, csrf: Text = "") -> Response:
        guard.signed(request, store, csrf)
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(guard.COOKIE, path="/")
        return answer

    @desk.get("/me")
    def mine(request: Request) -> Response:
        who = guard.visitor(request, store)
        return RedirectResponse("/login", 303) if who is None else own_page(request, who)

    @desk.post("/me")
    def upload(request: Request, archive: Annotated[UploadFile, File()], where: Text, csrf: Text = "") -> Response:
        who = guard.signed(request, store, csrf, "submit")
        guard.throttle(store, f"submit {who.id}", 60)
        name, _, phase = where.partition("/")
        try:
            if not who.team:
                raise AdvgymError("this token names no team, so it cannot hand in")
            id = intake.take(store, shelf, who.team, name, phase, archive.file.read())
        except AdvgymError as error:
            return own_page(request, who, str(error), 400)
        return RedirectResponse(f"/submissions/{id}", 303)

    def own_page(request: Request, who: tokens.Token, problem: str = "", code: int = 200) -> Response:
        rows = submissions.listing(store, team=who.team, limit=LISTED, steps=shelf.chain.step) if who.team else []
        boards = [b for _, b in sorted(shelf.boards.items()) if is_open(b)]
        csrf = guard.csrf_of(request)
        return page("me.html.j2", "/me", code, who=who, rows=rows, boards=boards, csrf=csrf, problem=problem)

    @desk.get("/submissions/{id}")
    def one(request: Request, id: str) -> Response:
        who = guard.visitor(request, store)
        boss = who is not None and who.may("organise")
        s = submissions.status(store, id[:40], full=boss, steps=shelf.chain.step)
        if s is None:
            raise HTTPException(404, f"there is no submission {id[:40]!r}")
        board = shelf.boards.get(s.board)
        return page(
            "submission.html.j2", f"/submissions/{s.id}", s=s, board_title=board.title if board else s.board,
            line=feed.line(s), steps=feed.steps(s), live=s.state in submissions.LIVE,
            mine=boss or (who is not None and bool(who.team) and who.team == s.team), csrf=guard.csrf_of(request),
        )  # fmt: skip

    @desk.post("/submissions/{id}/cancel")
    def withdraw(request: Request, id: str, csrf: Text = "") -> Response:
        who = guard.signed(request, store, csrf, "submit")
        boss = who.may("organise")
        if not boss and not who.team:
            raise HTTPException(403, "this token names no team")
        submissions.cancel(store, id[:40], "" if boss else who.team)
        return RedirectResponse(f"/submissions/{id[:40]}", 303)

    def boss(request: Request, csrf: str) -> tokens.Token:
        return guard.signed(request, store, csrf, "organise")

    @desk.get("/organise")
    def organise(request: Request) -> Response:
        who = guard.visitor(request, store)
        if who is None:
            return RedirectResponse("/login", 303)
        if not who.may("organise"):
            raise HTTPException(403, "the organiser's view takes an organiser's token")
        return view(request)

    @desk.post("/organise/tokens")
    def new_token(
        request: Request, role: Text, days: Annotated[float, Form()], team: Text = "", csrf: Text = ""
    ) -> Response:
        boss(request, csrf)
        try:
            text = tokens.new_token(store, role, team, days)
        except AdvgymError as error:
            return view(request, problem=str(error), code=400)
        return view(request, done=f"A token for {team or 'the ' + role}. It is shown this once:", token=text)

    @desk.post("/organise/tokens/{id}/revoke")
    def revoke(request: Request, id: str, csrf: Text = "") -> Response:
        boss(request, csrf)
        done = tokens.revoke_token(store, id[:40])
        return view(request, done=f"Token {id[:40]} is revoked.") if done else view(request, problem="No such token.")

    @desk.post("/organise/entries")
    def mark(
        request: Request, entry: Text, footnote: Text, unreliable: Text = "", external: Text = "", csrf: Text = ""
    ) -> Response:
        boss(request, csrf)
        try:
            new = mark_entry(shelf, entry, footnote, bool(unreliable), bool(external))
        except AdvgymError as error:
            return view(request, problem=str(error), code=400)
        return view(request, done=f"Marked: the new version is {new}.")

    def view(request: Request, code: int = 200, problem: str = "", done: str = "", token: str = "") -> Response:
        rows = submissions.listing(store, limit=LISTED, full=True)
        known = tokens.list_tokens(store)
        books = [shelf.book(name) for name in sorted(shelf.boards)]
        entries = [
            (p.id, f"{book.board.name}, {p.entry.phase}: {p.entry.name}")
            for book in books for table in book.tables.values() for p in table
        ]  # fmt: skip
        return page(
            "organise.html.j2", "/organise", code, counts=submissions.counts(store), rows=rows,
            workers=jobs.working(store), teams=team_rows(store, rows, known, books), tokens=known,
            roles=list(tokens.ROLES), entries=entries, csrf=guard.csrf_of(request), problem=problem, done=done,
            token=token, health=watch.health,
        )  # fmt: skip

    return desk


def page(template: str, here: str, code: int = 200, **values: Any) -> Response:
    """A page that is this visitor's alone."""
    return HTMLResponse(pages.render(template, here, **values), code, {"cache-control": "no-store"})


def team_rows(
    store: Store, rows: list[Any], known: list[tokens.Token], books: list[Any]
) -> list[tuple[str, int, int, int]]:
    """(team, live tokens, submissions listed, entries), by name."""
    now = store.clock()
    live = Counter(t.team for t in known if t.team and not t.revoked and t.expires > now)
    handed = Counter(s.team for s in rows)
    scored = Counter(e.team for book in books for e in book.entries.values() if e.team)
    return [(t, live[t], handed[t], scored[t]) for t in sorted({*live, *handed, *scored})]


def mark_entry(shelf: Shelf, id: str, footnote: str, unreliable: bool, external: bool) -> str:
    """The organiser's mark: a new version of an entry in the record; returns its id.

    Raises:
        AdvgymError: no such entry, a superseded one, or no footnote.
    """
    from advgym.leaderboards.entries import dispute

    found = shelf.find(id)
    if found is None:
        raise AdvgymError(f"there is no entry {id[:40]!r}")
    book = found[0]
    entry = shelf.whole(book, id)
    if id in book.lowered:
        raise AdvgymError(f"entry {id} was superseded by {book.lowered[id]}; mark that one")
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    new = dispute.mark(entry, created=now, footnote=footnote, unreliable=unreliable, external=external)
    made = record.write_entry(shelf.root, new, record.read_rows(shelf.root, entry))
    ledger.append(shelf.root, "footnote", {"entry": made, "supersedes": id})
    return made
