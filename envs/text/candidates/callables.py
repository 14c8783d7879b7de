"""Candidates from a callable of the caller's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from advgym.envs.text.candidates.source import Source
from advgym.errors import AdvgymError

OFFERS = frozenset({"language-model", "bugs"})


def own(function: Callable[..., Any]) -> Source:
    """`f(word) -> [words]` is asked once for each different word; `f(words, site) -> [words]` for each occurrence.

    Nothing of it is kept on disk, for nobody knows what it depends on. `f.offers = ("language-model",)`, or "bugs",
    says what its words are to the agents that need them.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        parameters = tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = ()
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) > 2:
        raise AdvgymError(f"candidates={name} takes {len(needed)} arguments; want f(word) or f(words, site)")

    def ask(*arguments: Any) -> list[str]:
        found = function(*arguments)
        if isinstance(found, str) or not isinstance(found, Sequence) or not all(isinstance(o, str) for o in found):
            raise AdvgymError(f"candidates={name} answers {found!r} to {arguments!r}; want a list of words")
        return list(found)

    told = frozenset(getattr(function, "offers", ()))
    if not told <= OFFERS:
        raise AdvgymError(f"{name}.offers holds words among {', '.join(sorted(OFFERS))}, not {sorted(told)}")
    if len(needed) == 2:
        return Source(name, texts=lambda ts: [[ask(list(t), i) for i in range(len(t))] for t in ts], offers=told)
    return Source(name, words=lambda words: {word: ask(word) for word in words}, cased=True, offers=told)
