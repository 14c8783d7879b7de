"""The participant's end of the API. The token is read from ADVGYM_TOKEN."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx

from advgym.errors import AdvgymError, DataError
from advgym.leaderboards.entries import card as cards

SERVER = "http://127.0.0.1:8000"
WAIT_S = 60.0
MOST_MB = 2048  # the server's board says less


def submit(server: str, folder: Path, board: str, phase: str = "") -> dict[str, Any]:
    """Hand a folder in; the status of the new submission."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; a submission is a folder with card.toml and agent.py or defense.py")
    cards.read_card(folder)
    files = {"archive": ("submission.tar", cards.pack(folder, size_mb=MOST_MB))}
    return _ask(server, "POST", "/api/submissions", files=files, data={"board": board, "phase": phase})


def dispute(server: str, result: Path, against: str) -> dict[str, Any]:
    """Hand in perturbations against an entry; the status of the dispute."""
    try:
        raw = result.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the result file {result}: {error.strerror}") from None
    return _ask(server, "POST", "/api/disputes", files={"result": (result.name, raw)}, data={"against": against})


def status(server: str, id: str) -> dict[str, Any]:
    """A submission's status."""
    return _ask(server, "GET", f"/api/submissions/{id}")


def listing(server: str) -> list[dict[str, Any]]:
    """The team's submissions, the newest first."""
    found: list[dict[str, Any]] = _ask(server, "GET", "/api/submissions")
    return found


def cancel(server: str, id: str) -> dict[str, Any]:
    """Withdraw a submission that is not over."""
    return _ask(server, "DELETE", f"/api/submissions/{id}")


def _ask(server: str, method: str, path: str, **body: Any) -> Any:
    token = os.environ.get("ADVGYM_TOKEN", "")
    if not token:
        raise AdvgymError("set ADVGYM_TOKEN to the token that the organiser gave you (`advgym token new` makes one)")
    if not server.startswith(("http://", "https://")):
        raise AdvgymError(f"a server is a URL such as {SERVER}, not {server!r}")
    try:
        answer = httpx.request(
            method, server.rstrip("/") + path, headers={"authorization": f"Bearer {token}"}, timeout=WAIT_S, **body
        )
    except httpx.HTTPError as error:
        raise AdvgymError(f"no answer from {server}: {error}; is `advgym serve` running there?") from None
    try:
        found = answer.json()
    except ValueError:
        raise AdvgymError(f"{server} answered {answer.status_code}, which is not advgym's API") from None
    if answer.is_success:
        return found
    problem = found.get("error", {}) if isinstance(found, dict) else {}
    text = str(problem.get("text") or f"{server} answered {answer.status_code}")
    code = problem.get("reason")
    raise AdvgymError(f"{code}: {text}" if code else text)
