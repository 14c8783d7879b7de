"""WordNet's database files (Miller, 1995; format: wndb(5WN)), as NLTK's data folders hold them.

Its own reader: NLTK's takes seconds to open and to import, ours reads lines where they stand. Lemmas are found as
WordNet's morphy does: exceptions first, then endings.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache, cached_property
from pathlib import Path

from advgym.errors import DataError
from advgym.lib.weights import data_dir

FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
PARTS = "nvar"  # noun, verb, adjective, adverb
ENDINGS = {
    "n": (("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
          ("men", "man"), ("ies", "y")),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}  # fmt: skip
NOWHERE = "nltk_data/corpora/wordnet with the files index.noun, data.noun, noun.exc ... of WordNet 3.0"


class Synset:
    """One line of a data file: its words and its pointers (symbol, part, offset, from word, to word; 0: the synset)."""

    def __init__(self, line: str) -> None:
        fields = line.split("|", 1)[0].split()
        many = int(fields[3], 16)
        self.words = tuple(w.split("(")[0] for w in fields[4 : 4 + 2 * many : 2])
        at = 4 + 2 * many
        self.pointers = tuple(
            (fields[i], fields[i + 2].replace("s", "a"), int(fields[i + 1]), int(fields[i + 3][:2], 16),
             int(fields[i + 3][2:], 16))
            for i in range(at + 1, at + 1 + 4 * int(fields[at]), 4)
        )  # fmt: skip


class WordNet:
    """The database in a folder.

    >>> found = find_wordnet()
    >>> found is None or ("film" in found.lemmas("films", "n") and "bad" in found.antonyms("good"))
    True
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data: dict[str, bytes] = {}
        self._index: dict[str, dict[str, tuple[int, ...]]] = {}
        self._exceptions: dict[str, dict[str, list[str]]] = {}
        for part, name in FILES.items():
            self._data[part] = self._read(f"data.{name}")
            self._index[part] = dict(map(_indexed, self._lines(f"index.{name}")))
            rows = (line.split() for line in self._lines(f"{name}.exc"))
            self._exceptions[part] = {row[0]: row[1:] for row in rows if row}
        self.synset, self.lemmas = cache(self._synset), cache(self._lemmas)

    def _read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise DataError(
                f"cannot read {self.folder / name}: {error.strerror}. WordNet is a folder {NOWHERE}; candidates="
                "'counter-fitted', 'typos', 'vocabulary' or a dict work without it"
            ) from None

    def _lines(self, name: str) -> list[str]:
        return [line for line in self._read(name).decode().split("\n") if line and not line.startswith(" ")]

    @cached_property
    def digest(self) -> str:
        """Of the files that say what means the same."""
        found = hashlib.sha256()
        for part in PARTS:
            found.update(self._data[part])
        return found.hexdigest()[:16]

    @cached_property
    def counts(self) -> dict[tuple[str, str], int]:
        """How often a lemma was seen in each part of speech, in the texts that WordNet's authors tagged."""
        out: dict[tuple[str, str], int] = {}
        for line in self._lines("cntlist.rev"):
            key, _, count = line.split()
            lemma, _, rest = key.partition("%")
            part = "nvara"[int(rest[0]) - 1]
            out[lemma, part] = out.get((lemma, part), 0) + int(count)
        return out

    def _synset(self, part: str, offset: int) -> Synset:
        data = self._data[part]
        return Synset(data[offset : data.index(b"\n", offset)].decode())

    def _lemmas(self, word: str, part: str) -> tuple[str, ...]:
        """The entries of a part of speech that a lower-case word is a form of, itself first (read as `lemmas`)."""
        index = self._index[part]
        forms = [word, *self._exceptions[part].get(word, ())]
        if len(forms) == 1:
            forms += [word[: -len(old)] + new for old, new in ENDINGS[part] if word.endswith(old)]
        return tuple(form for form in dict.fromkeys(forms) if form in index)

    def parts(self, word: str) -> set[str]:
        """The parts of speech that a word can be."""
        return {part for part in PARTS if self.lemmas(word.lower(), part)}

    def likely(self, word: str) -> str | None:
        """The part of speech in which a word's lemmas were seen most, for want of a tagger; None: no entry."""
        best, most = None, -1
        for part in PARTS:
            found = self.lemmas(word, part)
            seen = sum(self.counts.get((lemma, part), 0) for lemma in found)
            if found and seen > most:
                best, most = part, seen
        return best

    def synsets(self, word: str, part: str) -> list[Synset]:
        """The synsets of a word's lemmas, most frequent sense first."""
        return [self.synset(part, offset) for lemma in self.lemmas(word, part) for offset in self._index[part][lemma]]

    def forms(self, lemma: str, part: str) -> list[str]:
        """The irregular forms of a lemma."""
        return self._irregular[part].get(lemma, [])

    @cached_property
    def _irregular(self) -> dict[str, dict[str, list[str]]]:
        out: dict[str, dict[str, list[str]]] = {part: {} for part in PARTS}
        for part, table in self._exceptions.items():
            for form, lemmas in table.items():
                for lemma in lemmas:
                    out[part].setdefault(lemma, []).append(form)
        return out

    def antonyms(self, word: str) -> set[str]:
        """Lemmas that WordNet calls an antonym of a lemma of the word; of adjectives also of the head they lean on."""
        word = word.lower()
        out: set[str] = set()
        for part in PARTS:
            own = set(self.lemmas(word, part))
            for synset in self.synsets(word, part):
                out |= self._opposites(synset, own)
                if part == "a":
                    for symbol, other, offset, _, _ in synset.pointers:
                        if symbol == "&":
                            out |= self._opposites(self.synset(other, offset), None)
        return out

    def _opposites(self, synset: Synset, own: set[str] | None) -> set[str]:
        out = set()
        for symbol, part, offset, source, target in synset.pointers:
            if symbol == "!" and (own is None or not source or synset.words[source - 1].lower() in own):
                words = self.synset(part, offset).words
                out |= {w.lower() for w in (words if not target else words[target - 1 : target])}
        return out


def _indexed(line: str) -> tuple[str, tuple[int, ...]]:
    fields = line.split()
    return fields[0], tuple(int(o) for o in fields[-int(fields[2]) :])


@cache
def open_wordnet(folder: str) -> WordNet:
    """The WordNet in an NLTK data folder (or in the folder of its files).

    Raises:
        DataError: where it holds none; the message names the files.
    """
    path = Path(folder)
    inner = path / "corpora" / "wordnet"
    return WordNet(inner if inner.is_dir() or not (path / "index.noun").is_file() else path)


def find_wordnet() -> WordNet | None:
    """The WordNet of $ADVGYM_DATA/text/nltk_data or of $NLTK_DATA; None where neither holds one."""
    root = data_dir()
    places = [] if root is None else [root / "text" / "nltk_data"]
    places += [Path(p) for p in os.environ.get("NLTK_DATA", "").split(os.pathsep) if p]
    for place in places:
        if (place / "corpora" / "wordnet" / "index.noun").is_file():
            return open_wordnet(str(place))
    return None


def need_wordnet(what: str) -> WordNet:
    """The WordNet that `what` asks for, or an error that says where it is looked for."""
    found = find_wordnet()
    if found is None:
        raise DataError(
            f"{what} needs WordNet: {NOWHERE} under $ADVGYM_DATA/text or a folder of $NLTK_DATA. Without it: "
            "candidates='counter-fitted' (a JSON table), 'typos', 'homoglyphs', 'vocabulary', a dict; pos=False"
        )
    return found
