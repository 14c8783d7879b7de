"""What sources said, asked once: of each word list or sentence one small file in the cache, never pickled."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from advgym.envs.text.candidates.source import Source
from advgym.envs.text.inputs.spacing import PAIR
from advgym.errors import AdvgymError
from advgym.lib.files import write_atomic
from advgym.lib.weights import cache_dir, fingerprint

log = logging.getLogger("advgym")
SLOW = 200  # sentences from which on it is said that a source is asked
PART = 64  # sentences that are asked, and kept, at once


def words_of(source: Source, words: Sequence[str]) -> Mapping[str, list[str]]:
    """What a source without context says of each word; words without substitutes may be missing."""
    assert source.words is not None
    asked = sorted(w for w in set(words) if not _whole_text(w))
    path = _file(source, "words", asked)
    found: dict[str, list[str]] | None = _read(path, dict[str, list[str]])
    if found is None:
        found = {w: _clean(w, others, source.name) for w, others in source.words(asked).items()}
        _write(path, found)
    return found


def texts_of(source: Source, texts: Sequence[list[str]], what: str = "texts") -> list[list[list[str]]]:
    """What a source says in context: `what` is "texts" (per word), "gaps" or "merges" (per place)."""
    ask = getattr(source, what)
    paths = [_file(source, what, text) for text in texts]
    out: list[Any] = [_read(path, list[list[str]]) for path in paths]
    todo = [i for i, found in enumerate(out) if found is None]
    if len(todo) >= SLOW:
        log.warning("asking %s for candidates in %d sentences (kept in %s)", source.name, len(todo), cache_dir())
    for start in range(0, len(todo), PART):
        part = todo[start : start + PART]
        for i, rows in zip(part, ask([texts[i] for i in part]), strict=True):
            places = texts[i] if what == "texts" else [""] * len(rows)
            if len(rows) != len(places):
                raise AdvgymError(f"{source.name} gives {len(rows)} lists for a sentence of {len(places)} words")
            out[i] = [_clean(word, row, source.name) for word, row in zip(places, rows, strict=True)]
            _write(paths[i], out[i])
    return out


def joined(lists: Sequence[Sequence[str]]) -> list[str]:
    """Several lists in turns, each word once: however many are taken hold some of each."""
    return list(dict.fromkeys(word for turn in zip_longest(*lists) for word in turn if word is not None))


def _clean(word: str, others: Sequence[str], name: str) -> list[str]:
    """Substitutes that are one word and not the word itself."""
    for other in others:
        if not isinstance(other, str):
            raise AdvgymError(f"{name} gives {other!r} for {word!r}; substitutes are strings")
    fine = (o for o in others if o and o != word and not any(c.isspace() for c in o))
    return [] if _whole_text(word) else list(dict.fromkeys(fine))


def _whole_text(word: str) -> bool:
    """Whether a word is the other text of a pair, which stays."""
    return PAIR in word or any(c.isspace() for c in word)


def _file(source: Source, what: str, about: Any) -> Path | None:
    if not source.key:
        return None
    name = hashlib.sha256(msgspec.json.encode([what, about])).hexdigest()[:32]
    return cache_dir() / "candidates" / fingerprint(source.key) / name[:2] / f"{name}.json"


def _read(path: Path | None, kind: Any) -> Any:
    if path is None:
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def _write(path: Path | None, value: Any) -> None:
    if path is not None:
        write_atomic(path, msgspec.json.encode(value))
