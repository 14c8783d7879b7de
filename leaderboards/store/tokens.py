"""API tokens: shown once, kept as a hash, with a role, scopes and an end."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from advgym.errors import AdvgymError, unknown
from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.tables import token as table

PREFIX = "advgym_"
LONGEST_DAYS = 3650
LONGEST_TEAM = 64
ROLES: dict[str, tuple[str, ...]] = {  # role -> the scopes that it may have, and has by default
    "participant": ("submit", "dispute", "read"),
    "organiser": ("submit", "dispute", "read", "organise"),
    "worker": ("work",),
}


class Token(msgspec.Struct, frozen=True):
    """What is known of a token; `id` names it in lists, times are epoch seconds, `revoked` is 0 for never."""

    id: str
    role: str
    team: str
    scopes: tuple[str, ...]
    created: float
    expires: float
    revoked: float = 0.0

    def may(self, scope: str) -> bool:
        """Whether it opens a door."""
        return scope in self.scopes


def new_token(store: Store, role: str, team: str, days: float = 365, scopes: Sequence[str] | None = None) -> str:
    """Make a token; its text is returned here and kept nowhere.

    Args:
        store: where its hash is kept.
        role: participant, organiser or worker.
        team: 1 to 64 printable characters; may be empty unless the role is participant.
        days: until it ends, at most 3650.
        scopes: all of the role's by default, or some of them.

    Raises:
        AdvgymError: what was wrong with the arguments.
    """
    if role not in ROLES:
        raise unknown("role", role, ROLES)
    team = check_team(team) if team or role == "participant" else ""
    if not 0 < days <= LONGEST_DAYS:
        raise AdvgymError(f"a token lasts more than 0 and at most {LONGEST_DAYS} days, not {days}")
    wanted = ROLES[role] if scopes is None else tuple(scopes)
    for scope in wanted:
        if scope not in ROLES[role]:
            raise unknown(f"scope of the role {role}", scope, ROLES[role])
    text = PREFIX + secrets.token_urlsafe(32)
    now = store.clock()
    row = {
        "id": secrets.token_hex(4), "hash": _hash(text), "role": role, "team": team, "scopes": " ".join(wanted),
        "created": now, "expires": now + days * 86400,
    }  # fmt: skip
    with store.write() as connection:
        connection.execute(sa.insert(table).values(row))
    return text


def find_token(store: Store, text: str) -> Token | None:
    """The token of a text, or None when there is none, or it has ended, or was revoked."""
    if not text.startswith(PREFIX) or len(text) > 100:
        return None
    with store.read() as connection:
        row = connection.execute(sa.select(table).where(table.c.hash == _hash(text))).one_or_none()
    if row is None or row.revoked is not None or row.expires <= store.clock():
        return None
    return _token(row)


def revoke_token(store: Store, id: str) -> bool:
    """End a token by its short id; False when there is none or it was revoked before."""
    with store.write() as connection:
        query = sa.update(table).where(table.c.id == id, table.c.revoked.is_(None)).values(revoked=store.clock())
        return connection.execute(query).rowcount == 1


def list_tokens(store: Store) -> list[Token]:
    """Every token ever made, the newest first."""
    with store.read() as connection:
        return [
            _token(row) for row in connection.execute(sa.select(table).order_by(table.c.created.desc(), table.c.id))
        ]


def check_team(team: str) -> str:
    """A team's name without surrounding space.

    Raises:
        AdvgymError: empty, too long, or not printable.
    """
    team = team.strip()
    if not team or len(team) > LONGEST_TEAM or not team.isprintable():
        raise AdvgymError(f"a team's name has 1 to {LONGEST_TEAM} printable characters, not {team[:80]!r}")
    return team


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _token(row: sa.Row[Any]) -> Token:
    scopes = tuple(row.scopes.split())
    return Token(row.id, row.role, row.team, scopes, row.created, row.expires, row.revoked or 0.0)
