"""The constraints of a task from its options: some prune the table of choices, some judge whole texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from advgym.envs.text.constraints import antonyms, edit_distance, part_of_speech, perplexity, similarity
from advgym.envs.text.constraints.law import Law, Test
from advgym.envs.text.data.corpora import STOPWORDS
from advgym.envs.text.inputs.dressing import plain_core
from advgym.errors import AdvgymError


@dataclass(frozen=True)
class Rules:
    """What the options of a task ask for.

    Attributes:
        frozen: words that are no sites.
        tests: of single substitutes.
        laws: of whole texts.
    """

    frozen: frozenset[str] = frozenset()
    tests: tuple[Test, ...] = ()
    laws: tuple[Law, ...] = ()
    _seen: dict[tuple[str, str], bool] = field(default_factory=dict, compare=False)

    def keep(self, word: str, others: Sequence[str], most: int | None = None) -> list[str]:
        """The first `most` substitutes that every test lets through; punctuation and case aside."""
        if not self.tests:
            return list(others[:most])
        core = plain_core(word)
        return list(islice((o for o in others if self._fine(core, plain_core(o))), most))

    def _fine(self, word: str, other: str) -> bool:
        pair = (word, other)
        if pair not in self._seen:
            self._seen[pair] = all(test(word, other) for test in self.tests)
        return self._seen[pair]


def read_rules(options: Mapping[str, Any]) -> Rules:
    """The constraints that a task's options ask for; an option that the row lacks asks for nothing.

    Raises:
        AdvgymError: for stop words or opposites that are none. DataError: where a corpus or a model is missing.
    """
    tests: list[Test] = []
    for made in (
        antonyms.test(options.get("antonyms", False)),
        part_of_speech.test(options.get("pos", False)),
        edit_distance.test(options.get("edit_distance", 0)),
    ):
        tests += [] if made is None else [made]
    laws: list[Law] = []
    if options.get("similarity"):
        laws.append(similarity.Similarity(str(options["similarity"]), float(options["similarity_min"])))
    if options.get("perplexity"):
        laws.append(perplexity.Perplexity(str(options["perplexity"]), float(options["perplexity_max"])))
    return Rules(frozenset(_stopwords(options.get("stopwords", False))), tuple(tests), tuple(laws))


def _stopwords(value: Any) -> frozenset[str]:
    """True: our function words; False: none; a list of words, or the path of a file with one a line."""
    if isinstance(value, bool):
        return STOPWORDS if value else frozenset()
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(w, str) for w in value):
        return frozenset(value)
    if isinstance(value, Path) or (isinstance(value, str) and value not in ("true", "false")):
        try:
            return frozenset(Path(value).read_text(encoding="utf-8").split())
        except OSError as error:
            raise AdvgymError(
                f"stopwords={value!r}: {error.strerror}; want true, false, a list of words, or a file with one a line"
            ) from None
    raise AdvgymError(f"stopwords is true, false, a list of words, or a file with one a line, not {value!r}")
