"""Candidates from a table {word: [words]}: counter-fitted, WordNet as JSON, the embedded grammar's, one's own."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from advgym.envs.text.candidates.source import Source
from advgym.envs.text.data import grammar
from advgym.envs.text.data.corpora import missing
from advgym.errors import DataError
from advgym.lib.weights import data_dir

log = logging.getLogger("advgym")


def table(groups: Mapping[str, Sequence[str]], name: str = "candidates=") -> Source:
    """A table of the caller's: {"film": ["movie"]}; each substitute is one word."""
    if not isinstance(groups, Mapping):
        raise DataError(f'{name}: a table looks like {{"film": ["movie"]}}, not {type(groups).__name__}')
    for word, others in groups.items():
        fine = isinstance(word, str) and isinstance(others, list | tuple)
        if not fine or not all(isinstance(o, str) and o and not any(c.isspace() for c in o) for o in others):
            raise DataError(f"{name}: {word!r} has {others!r}; want a list of single words")
    return Source(name, words=lambda words: {w: list(groups[w]) for w in words if w in groups}, groups=groups)


def from_file(path: Path) -> Source:
    """A table in a JSON file."""
    return table(_read(path), str(path))


@cache
def _read(path: Path) -> dict[str, list[str]]:
    try:
        found: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise missing(path, error) from None
    except ValueError as error:
        raise DataError(f"{path} is not a JSON table of candidates: {error}") from None
    return found


def _data(name: str, file: str) -> Source:
    root = data_dir()
    if root is None:
        raise DataError(
            f"candidates={name!r} is read from $ADVGYM_DATA/text/synonyms/{file}, and ADVGYM_DATA is not set; "
            "candidates='synth', 'typos', 'homoglyphs', 'vocabulary', a dict, or the path of a JSON table work without"
        )
    return from_file(root / "text" / "synonyms" / file)


def counter_fitted() -> Source:
    """Neighbours in counter-fitted vectors (Mrksic et al., 2016), nearest first."""
    return _data("counter-fitted", "counterfitted_neighbors.json")


def wordnet() -> Source:
    """Single words of a shared synset of Open English WordNet, a JSON table; "wordnet:FOLDER" reads WordNet itself."""
    return _data("wordnet", "wordnet_synonyms.json")


def synth() -> Source:
    """The embedded grammar's synsets."""
    return table(grammar.synonyms(), "synth")


def auto() -> Source:
    """Counter-fitted where ADVGYM_DATA is set, else the embedded grammar's few hundred words."""
    if data_dir() is not None:
        return counter_fitted()
    log.warning("no candidates given and ADVGYM_DATA is not set: only the words of the embedded grammar are swapped")
    return synth()


def own_table(value: Any, where: str) -> Mapping[str, Sequence[str]]:
    """A table given as a dict or as the path of a JSON file, checked."""
    groups: Any = value if isinstance(value, Mapping) else _read(Path(str(value)))
    table(groups, where)
    return groups
