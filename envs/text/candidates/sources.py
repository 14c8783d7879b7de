"""`candidates=` read: names, tables, callables, TextAttack's transformations, or a list of these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advgym.envs.text.candidates.callables import own
from advgym.envs.text.candidates.from_textattack import transformed
from advgym.envs.text.candidates.source import Source
from advgym.envs.text.candidates.tables import from_file, table
from advgym.errors import AdvgymError, unknown
from advgym.registry import load

# Each is called without arguments, or, after a colon, with what follows it.
PLAIN = {
    "counter-fitted": "advgym.envs.text.candidates.tables:counter_fitted",
    "wordnet": "advgym.envs.text.candidates.tables:wordnet",
    "synth": "advgym.envs.text.candidates.tables:synth",
    "auto": "advgym.envs.text.candidates.tables:auto",
    "vocabulary": "advgym.envs.text.candidates.sources:vocabulary",
    "typos": "advgym.envs.text.candidates.typos:typos",
    "homoglyphs": "advgym.envs.text.candidates.homoglyphs:homoglyphs",
    "invisible": "advgym.envs.text.candidates.invisible:invisible",
}
NAMED = {
    "wordnet": "advgym.envs.text.candidates.inflected:wordnet",
    "masked-lm": "advgym.envs.text.candidates.masked_lm:masked",
    "unmasked-lm": "advgym.envs.text.candidates.masked_lm:unmasked",
    "textattack": "advgym.envs.text.candidates.from_textattack:named",
}
HINT = (
    "Allowed besides: 'wordnet:FOLDER' (an NLTK data folder), 'masked-lm:NAME', 'unmasked-lm:NAME', "
    "'textattack:CLASS', a dict, the path of a JSON table, a callable, or a list of these."
)


def vocabulary() -> Source:
    """Every word of the task for every other (HotFlip, Ebrahimi et al. 2018, without its constraints)."""
    return Source("vocabulary")


def read_sources(value: Any) -> list[Source]:
    """The sources that `candidates=` asks for.

    Raises:
        AdvgymError: for a name that does not exist, or "vocabulary" beside others. DataError: for a table that is none.
    """
    items = list(value) if isinstance(value, list | tuple) and not hasattr(value, "words") else [value]
    if not items:
        raise AdvgymError(f"candidates= names at least one source. {HINT}")
    rules = [item for item in items if is_constraint(item)]
    found = [_read(item, rules) for item in items if item not in rules]
    if rules and not any(source.name.startswith("textattack:") for source in found):
        raise AdvgymError("constraints of TextAttack act on its transformations: candidates= names none")
    if len(found) > 1 and any(source.whole for source in found):
        raise AdvgymError("candidates='vocabulary' holds every word already: it stands alone")
    return found


def _read(item: Any, rules: list[Any]) -> Source:
    if isinstance(item, Source):
        return item
    if isinstance(item, dict):
        return table(item)
    if isinstance(item, Path):
        return _file(item)
    if isinstance(item, str):
        return _named(item, rules)
    if is_transformation(item):
        return transformed(item, rules)
    if callable(item):
        return own(item)
    raise unknown("candidates", item, PLAIN, HINT)


def is_transformation(item: Any) -> bool:
    """Whether it is one of TextAttack's, without an import of TextAttack."""
    return _descends(item, "textattack.transformations")


def is_constraint(item: Any) -> bool:
    """Whether it is a constraint of TextAttack's, of either kind."""
    return _descends(item, "textattack.constraints")


def _descends(item: Any, package: str) -> bool:
    return any(kind.__module__.startswith(package) for kind in type(item).__mro__)


def _named(name: str, rules: list[Any]) -> Source:
    if name in PLAIN:
        made: Source = load(PLAIN[name])()
        return made
    head, colon, rest = name.partition(":")
    if colon and head in NAMED:
        if not rest:
            raise AdvgymError(f"candidates={name!r} lacks what follows the colon. {HINT}")
        make = load(NAMED[head])
        made = make(rest, rules) if head == "textattack" else make(rest)
        return made
    if "/" in name or name.endswith(".json"):
        return _file(Path(name))
    raise unknown("candidates", name, {*PLAIN, *(f"{n}:" for n in NAMED)}, HINT)


def _file(path: Path) -> Source:
    return from_file(path)
