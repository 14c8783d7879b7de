"""What stands before every route: body sizes, security headers, who is asking, forged forms, rates."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.rates import allow
from advgym.leaderboards.store.tokens import Token, find_token

COOKIE = "advgym_token"
SESSION_S = 12 * 3600
FORM_BYTES = 64 << 10  # of a body that carries no file
HEADERS = {
    # Fragments of examples carry style attributes, made here and escaped; scripts are files of our own.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
        "img-src 'self' data:; media-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class TooLarge(Exception):
    """A body went past its limit while it was being read."""


class Guard:
    """ASGI middleware: refuses large bodies before they are read, and puts the security headers on every answer.

    Args:
        app: what it guards.
        uploads: paths that take files; largest: bytes of their bodies.
    """

    def __init__(self, app: Any, uploads: frozenset[str], largest: int) -> None:
        self.app, self.uploads, self.largest = app, uploads, largest

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.largest if scope["path"] in self.uploads else FORM_BYTES
        said = dict(scope["headers"]).get(b"content-length", b"0")
        seen, started, over = 0, False, not said.isdigit() or int(said) > limit

        async def counted() -> Message:
            nonlocal seen, over
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                over = True
                raise TooLarge
            return message

        async def dressed(message: Message) -> None:
            nonlocal started
            if over and not started:  # whatever the route made of the torn body
                await refuse()
            elif not over:
                started = True
                if message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", []), *_raw_headers()]
                await send(message)

        async def refuse() -> None:
            nonlocal started
            started = True
            text = f'{{"error":{{"reason":"too-large","blame":"participant","text":"at most {limit} bytes here"}}}}'
            headers = [(b"content-type", b"application/json"), (b"connection", b"close"), *_raw_headers()]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": text.encode()})

        if over:
            await refuse()
            return
        with contextlib.suppress(TooLarge):
            await self.app(scope, counted, dressed)
        if over and not started:
            await refuse()


def _raw_headers() -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in HEADERS.items()]


def bearer(request: Request, store: Store, scope: str = "") -> Token:
    """The token of an API call, from its Authorization header; cookies do not count there.

    Raises:
        HTTPException: 401 without a live token, 403 without the scope.
    """
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    token = find_token(store, text.strip()) if kind.lower() == "bearer" else None
    if token is None:
        raise HTTPException(401, "give a token: `Authorization: Bearer advgym_...`", {"www-authenticate": "Bearer"})
    if scope and not token.may(scope):
        raise HTTPException(403, f"this token may not {scope}; its scopes are: {', '.join(token.scopes) or 'none'}")
    return token


def visitor(request: Request, store: Store) -> Token | None:
    """Who is signed in on the pages, by cookie; None for nobody."""
    text = request.cookies.get(COOKIE, "")
    return find_token(store, text) if text else None


def csrf_of(request: Request) -> str:
    """What every form of this visitor carries: nobody who does not know the cookie can make it."""
    return hmac.new(request.cookies.get(COOKIE, "").encode(), b"advgym form", hashlib.sha256).hexdigest()


def own_page(request: Request) -> None:
    """Refuse a form that another site sent.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin", "")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none") or (origin and urlsplit(origin).netloc != request.headers.get("host")):
        raise HTTPException(403, "this form was sent by another site")


def signed(request: Request, store: Store, csrf: str, scope: str = "read") -> Token:
    """Who sent a form.

    Raises:
        HTTPException: 401 for nobody, 403 for a forged form or a missing scope.
    """
    own_page(request)
    token = visitor(request, store)
    if token is None:
        raise HTTPException(401, "sign in first")
    if not hmac.compare_digest(csrf.encode(), csrf_of(request).encode()):
        raise HTTPException(403, "this form is out of date; load its page again")
    if not token.may(scope):
        raise HTTPException(403, f"this token may not {scope}")
    return token


def throttle(store: Store, key: str, limit: int, window_s: int = 60) -> None:
    """Count one request of `key`.

    Raises:
        HTTPException: 429 beyond `limit` in a window.
    """
    if not allow(store, key, limit, window_s):
        raise HTTPException(429, f"more than {limit} requests in {window_s} s; wait", {"retry-after": str(window_s)})


def address(request: Request) -> str:
    """Where a request comes from, as the rate limits count it."""
    return request.client.host if request.client else "unknown"
