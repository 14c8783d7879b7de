"""A model behind HTTP: JSON asked and answered, with retries, back-off, a rate, several at once, and a cap on the cost.

Knows no domain. Every way in which a server fails is an `EndpointError` that names it; what was answered until then has
been handed on.
"""

from __future__ import annotations

import email.utils
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from msgspec import Meta

from advgym.errors import AdvgymError, VictimError
from advgym.lib.options import Options

AGAIN = (408, 425, 429, 500, 502, 503, 504)  # answers after which the same may be asked once more
SECRETS = re.compile(r"(api|access)?[_-]?(key|token)")  # names in an address that tell a key
SHOWN = 160  # characters of a server's words in a message


class EndpointError(VictimError):
    """A server that is down, refuses, answers nothing that can be read, or miscounts."""


class CostCap(EndpointError):
    """As many requests or tokens as were allowed are spent."""


class Limits(Options, kw_only=True):
    """How a server is asked; passing failures are 408, 425, 429, 5xx, time-outs and closed connections."""

    retries: Annotated[int, Meta(ge=0, description="times that a passing failure is tried again")] = 5
    backoff: Annotated[
        float, Meta(ge=0, description="seconds before the first of them, doubled each time; Retry-After where longer")
    ] = 0.5
    most_wait: Annotated[
        float, Meta(ge=0, description="seconds that are waited at most; a server that asks for more is given up")
    ] = 60.0
    timeout: Annotated[float, Meta(gt=0, description="seconds for one answer")] = 60.0
    rate: Annotated[float, Meta(ge=0, description="requests a second, of all threads together; 0 for no bound")] = 0.0
    concurrency: Annotated[int, Meta(ge=1, description="requests on their way at once")] = 4
    most_requests: Annotated[int, Meta(ge=0, description="that are ever sent, retries too; 0 for no bound")] = 0
    most_tokens: Annotated[
        int, Meta(ge=0, description="after as many, by the server's count, nothing more is sent; 0 for no bound")
    ] = 0


def checked_url(url: str) -> str:
    """The address, if it is one that can be asked and told to others.

    Raises:
        AdvgymError: it has no host, is not of http, or holds a password, which would stand in results.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AdvgymError(f"{url!r} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise AdvgymError(f"{url!r} is no address of an endpoint: want http://HOST:PORT/PATH or https://")
    if parts.username or parts.password or any(SECRETS.fullmatch(n.lower()) for n, _ in parse_qsl(parts.query)):
        raise AdvgymError(
            "an address with a password or key would stand in results: put the key into an environment variable and "
            "name that, key_env=NAME; it is sent as a bearer token"
        )
    return url


class Endpoint:
    """One server.

    Args:
        url: that JSON is posted to.
        limits: of asking.
        key: the environment variable that holds the key, sent as a bearer token and never told; "" for none.
        counted: where an answer says how many tokens it used, the names of fields inwards; () for nowhere.

    Attributes:
        requests, tokens: sent and used so far.
    """

    def __init__(self, url: str, limits: Limits | None = None, key: str = "", counted: tuple[str, ...] = ()) -> None:
        self.url, self.limits, self.key = checked_url(url), limits or Limits(), key
        self.requests, self.tokens, self.counted = 0, 0, counted
        self._lock, self._next = threading.Lock(), 0.0
        self._client: Any = None

    def _secret(self) -> str:
        return os.environ.get(self.key, "").strip() if self.key else ""

    def _open(self) -> Any:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=self.limits.timeout, follow_redirects=False)
        return self._client

    def close(self) -> None:
        """Close the connections; a later request opens them anew."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # -- one request -----------------------------------------------------------------------------------------
    def _turn(self) -> None:
        """Wait for this request's turn, and count it.

        Raises:
            CostCap: no more may be sent.
        """
        limits = self.limits
        with self._lock:
            if limits.most_requests and self.requests >= limits.most_requests:
                raise CostCap(f"{self.url}: the cap of most_requests={limits.most_requests} is reached")
            if limits.most_tokens and self.tokens >= limits.most_tokens:
                raise CostCap(
                    f"{self.url}: the cap of most_tokens={limits.most_tokens} is reached ({self.tokens} used)"
                )
            self.requests += 1
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + (1 / limits.rate if limits.rate else 0.0)
        if at > now:
            time.sleep(at - now)

    def post(self, payload: Any) -> Any:
        """The decoded answer to one payload.

        Raises:
            EndpointError: names the address, what it said last, and what to do.
        """
        for attempt in range(self.limits.retries + 1):
            self._turn()
            status, body, said, asked = self._send(payload)
            if status is not None and 200 <= status < 300:
                return self._decoded(body)
            if status is not None and status not in AGAIN:
                raise EndpointError(f"{self.url} {said}. {_advice(status, self.key)}")
            if attempt == self.limits.retries:
                break
            pause = max(self.limits.backoff * 2**attempt, asked)
            if asked > self.limits.most_wait:
                raise EndpointError(
                    f"{self.url} {said} and asks for {asked:.0f} s, more than most_wait={self.limits.most_wait:g}: "
                    "come back later, or raise most_wait="
                )
            time.sleep(min(pause, self.limits.most_wait))
        raise EndpointError(
            f"{self.url} {said}, {self.limits.retries + 1} time(s). Is the server up and the address right? "
            "retries=, backoff= and timeout= say how long to try"
        )

    def _send(self, payload: Any) -> tuple[int | None, bytes, str, float]:
        """(status or None, body, what happened in words, seconds that the server asks to wait)."""
        import httpx

        secret = self._secret()
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        try:
            answer = self._open().post(self.url, json=payload, headers=headers)
        except httpx.TimeoutException:
            return None, b"", f"did not answer within {self.limits.timeout:g} s", 0.0
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return None, b"", f"cannot be asked: {self._shown(f'{type(error).__name__}: {error}')}", 0.0
        said = f"answers {answer.status_code}: {self._shown(answer.text)}"
        return answer.status_code, answer.content, said, _after(answer.headers.get("retry-after", ""))

    def _shown(self, text: str) -> str:
        """A server's words, short and without the key."""
        secret = self._secret()
        text = " ".join((text.replace(secret, "***") if secret else text).split())
        return text[:SHOWN] + ("..." if len(text) > SHOWN else "") or "(nothing)"

    def _decoded(self, body: bytes) -> Any:
        import json

        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            raise EndpointError(
                f"{self.url} answers no JSON: {self._shown(body.decode('utf-8', 'replace'))}. Is this the address of "
                "the model, and not of a page?"
            ) from None
        used = found if self.counted else None
        for name in self.counted:
            used = used.get(name) if isinstance(used, dict) else None
        if isinstance(used, int) and used >= 0:
            with self._lock:
                self.tokens += used
        elif self.limits.most_tokens:
            raise EndpointError(f"{self.url} does not say how many tokens it used: bound it by most_requests=")
        return found

    # -- many ------------------------------------------------------------------------------------------------
    def each(self, payloads: Sequence[Any], read: Callable[[int, Any], Any]) -> Iterator[tuple[int, Any]]:
        """(i, `read(i, answer)`) of each payload, as they come; `concurrency` are on their way at once.

        After an error nothing more is sent, what is on its way is waited for and handed on, and then it is raised.
        """

        def ask(i: int) -> tuple[int, Any]:
            return i, read(i, self.post(payloads[i]))

        if len(payloads) == 1:
            yield ask(0)
            return
        waiting, failed = iter(range(len(payloads))), None
        with ThreadPoolExecutor(max_workers=min(self.limits.concurrency, max(len(payloads), 1))) as pool:
            going: set[Future[tuple[int, Any]]] = set()
            while True:
                while failed is None and len(going) < self.limits.concurrency:
                    i = next(waiting, None)
                    if i is None:
                        break
                    going.add(pool.submit(ask, i))
                if not going:
                    break
                done, going = wait(going, return_when=FIRST_COMPLETED)
                for future in done:
                    error = future.exception()
                    if error is None:
                        yield future.result()
                    else:
                        failed = failed or error
        if failed is not None:
            raise failed


def _after(text: str) -> float:
    """Seconds of a `Retry-After`: a number, or a date."""
    try:
        found = float(text)
    except ValueError:
        try:
            found = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return found if 0 < found < math.inf else 0.0


def _advice(status: int, key: str) -> str:
    if status in (401, 403):
        return f"The key is read from the environment variable {key or 'that key_env= names'}"
    if 300 <= status < 400:
        return "It sends elsewhere, which is not followed: give the address it points to"
    return "The address, the model's name or the names of the fields are not what it takes"
