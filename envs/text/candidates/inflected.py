"""Candidates of one part of speech from WordNet itself, in the form that the word has (PWWS: Ren et al., 2019)."""

from __future__ import annotations

from advgym.envs.text.candidates.source import Source
from advgym.envs.text.data import wordnet_files as database

VOWELS = "aeiou"


def wordnet(folder: str) -> Source:
    """Words that share a synset with a lemma of the word, most frequent sense first; folder "nltk": $NLTK_DATA's.

    PWWS takes the synsets of the word's part of speech by a tagger; here it is the part in which WordNet's authors saw
    the word most. A substitute takes the word's own ending (films -> movies) and is left out where no rule or list of
    exceptions gives that form.
    """
    found = database.need_wordnet("candidates='wordnet:nltk'") if folder == "nltk" else database.open_wordnet(folder)
    return Source(
        f"wordnet:{folder}",
        words=lambda words: {word: synonyms(found, word) for word in words},
        key=f"wordnet 1 {found.digest}",
    )


def synonyms(found: database.WordNet, word: str) -> list[str]:
    """The substitutes of a lower-case word, without itself."""
    part = found.likely(word)
    if part is None:
        return []
    out: list[str] = []
    for lemma in found.lemmas(word, part):
        for synset in found.synsets(lemma, part):
            # Names are written with a capital; collocations with an underscore.
            plain = (w for w in synset.words if w.isalpha() and w.islower() and w != lemma)
            out += [form for other in plain if (form := inflected(found, word, lemma, other, part))]
    return [other for other in dict.fromkeys(out) if other != word]


def inflected(found: database.WordNet, word: str, lemma: str, other: str, part: str) -> str | None:
    """`other` in the form that `word` is of `lemma`; None where that is not known."""
    if word == lemma or part == "r":
        return other
    irregular = [f for f in found.forms(other, part) if f.isalpha()]
    if part == "n":
        form = irregular[0] if irregular else _plural(other)
    elif part == "a":
        ending = "est" if word.endswith("est") else "er"
        form = next((f for f in irregular if f.endswith(ending)), _compared(other, ending))
    elif word.endswith("ing"):
        form = next((f for f in irregular if f.endswith("ing")), _stem(other) + "ing")
    elif word.endswith("s") and word not in found.forms(lemma, part):
        form = _plural(other)
    else:
        past = [f for f in irregular if not f.endswith("ing")]
        if len(past) > 1:  # "wrote" or "written": nobody says which
            return None
        form = past[0] if past else _stem(other, "ie") + "ed"
    return form if other in found.lemmas(form, part) else None


def _plural(word: str) -> str:
    if word.endswith("y") and word[-2:-1] not in VOWELS:
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def _stem(word: str, y: str = "") -> str:
    """Before -ing, or, with y="ie", before -ed."""
    if word.endswith("e") and not word.endswith(("ee", "ye", "oe")):
        return word[:-1]
    return word[:-1] + "i" if y and word.endswith("y") and word[-2:-1] not in VOWELS else word


def _compared(word: str, ending: str) -> str:
    """The short form; long adjectives are compared with another word, so that theirs is no word of WordNet's."""
    if len(word) > 6:
        return ""
    return (word[:-1] + "i" if word.endswith("y") else word.removesuffix("e")) + ending
