"""No substitute that means the opposite: WordNet's antonyms, and a table of one's own."""

from __future__ import annotations

from functools import cache
from typing import Any

from advgym.envs.text.constraints.law import Test
from advgym.envs.text.data.wordnet_files import PARTS, WordNet, find_wordnet, need_wordnet
from advgym.errors import AdvgymError


def test(value: Any) -> Test | None:
    """The guard: "auto" where WordNet is there, true (WordNet is needed), false, or a table {"good": ["bad"]}.

    A pair is refused where either word is an antonym of the other, in whatever form they stand: WordNet's lemmas of
    both are compared. Language models need it most, for opposites stand in like contexts; counter-fitted neighbours
    hold few such pairs, since antonyms were pushed apart when they were made.
    """
    if value is False:
        return None
    found: WordNet | None = None
    own: dict[str, set[str]] = {}
    if value is True:
        found = need_wordnet("antonyms=true")
    elif value == "auto":
        found = find_wordnet()
        if found is None:
            return None
    elif isinstance(value, dict) or (isinstance(value, str) and value.endswith(".json")):
        from advgym.envs.text.candidates.tables import own_table

        found = find_wordnet()
        for word, others in own_table(value, "antonyms=").items():
            for other in others:
                own.setdefault(word, set()).add(other)
                own.setdefault(other, set()).add(word)
    else:
        raise AdvgymError(f"antonyms is 'auto', true, false, a dict or the path of a JSON table, not {value!r}")

    @cache
    def opposites(word: str) -> frozenset[str]:
        return frozenset(own.get(word, set()) | (found.antonyms(word) if found else set()))

    @cache
    def forms(word: str) -> frozenset[str]:
        return frozenset([word, *(lemma for part in PARTS for lemma in (found.lemmas(word, part) if found else ()))])

    @cache
    def known(word: str) -> bool:  # what no list has (a typo) is the opposite of nothing
        return word in own or (found is not None and any(found.lemmas(word, part) for part in PARTS))

    def fine(word: str, other: str) -> bool:
        if not known(other) or not known(word):
            return True
        return not (opposites(word) & forms(other) or opposites(other) & forms(word))

    return fine
