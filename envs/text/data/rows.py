"""Samples as they stand in the data: rows of texts and labels, each text checked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from advgym.envs.text.inputs.spacing import CLOSE, PAIR
from advgym.errors import DataError

log = logging.getLogger("advgym")
Text = str | tuple[str, str]
Sample = tuple[Text, int]


@dataclass(frozen=True)
class Rows:
    """Samples as they stand in the data.

    Attributes:
        texts: strings, or pairs of them.
        labels: of any kind (`labels.meet` reads them); 0 where none are asked for.
        where: file and line, or position in a list.
        names: of the numbers in `labels`, where the data states them.
    """

    texts: list[Text]
    labels: list[Any]
    where: list[str]
    names: list[str] | None = None


def check_string(value: Any, what: str, where: str) -> str:
    """A text as it is: what no file could hold, and what marks pairs inside, is refused."""
    if not isinstance(value, str):
        raise DataError(f"{where}: {what} is a text, not {'missing' if value is None else repr(value)}")
    for i, char in enumerate("" if value.isascii() else value):
        if "\ud800" <= char <= "\udfff" or char in (PAIR, CLOSE):
            kind = "no character" if char in (PAIR, CLOSE) else "half a character"
            why = f"is {kind} (U+{ord(char):04X})"
            raise DataError(
                f"{where}: character {i} of {what} {why}, which no text file holds; leave it out, or put U+FFFD there"
            )
    return value


def say_empty(rows: Rows, more: str = "") -> None:
    """One warning for texts without words: they are kept, and nothing in them can be edited."""
    empty = [w for t, w in zip(rows.texts, rows.where, strict=True) if not "".join(t).strip()]
    if empty:
        log.warning("%d text(s) hold no words (first: %s) and cannot be edited%s", len(empty), empty[0], more)
