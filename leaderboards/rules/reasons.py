"""Reason codes: how a submission ended that was not scored, who is to blame, and what its author reads."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from advgym.errors import AdvgymError, unknown

Blame = Literal["participant", "platform"]
LONGEST = 500  # characters of detail; what a sandbox says is as long as its author likes


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of reasons.toml: who is to blame, and the sentence, with a place for `{detail}`."""

    blame: Blame
    say: str


@lru_cache(maxsize=1)
def table() -> dict[str, Reason]:
    """Every reason by its code, in the file's order."""
    raw = Path(__file__).with_name("reasons.toml").read_bytes()
    return msgspec.convert(tomllib.loads(raw.decode()), dict[str, Reason])


def find(code: str) -> Reason:
    """The reason of a code.

    Raises:
        AdvgymError: no such code, with the nearest.
    """
    rows = table()
    if code not in rows:
        raise unknown("reason code", code, rows)
    return rows[code]


def text(code: str, detail: str = "") -> str:
    """The sentence of a code with its detail filled in.

    >>> text("bad-card", "no key 'name'")
    "card.toml: no key 'name'"
    """
    return find(code).say.format(detail=tidy(detail) or "no further detail")


def tidy(detail: str) -> str:
    r"""One line of printable text, cut to `LONGEST` characters.

    >>> tidy("two\nlines\x1b[31m")
    'two lines [31m'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in detail[: 4 * LONGEST]).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


class Refused(AdvgymError):
    """A submission, or a shard of it, that ends with a reason code; the message is the code's sentence.

    Attributes:
        code: a row of reasons.toml.
        detail: what fills the sentence, as one printable line.
        blame: "participant" or "platform" (then the quota is given back).
        text: the sentence.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        self.code, self.detail = code, tidy(detail)
        self.blame: Blame = find(code).blame
        self.text = text(code, detail)
        super().__init__(code, detail)  # so that it can be copied and sent between processes

    def __str__(self) -> str:
        return self.text
