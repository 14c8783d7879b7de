"""Multi30k (Elliott et al., 2016): image captions in English and German, as words and as the tokens of a translator."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from advgym.envs.text.data.corpora import WORKS
from advgym.envs.text.inputs.vocabulary import Vocabulary
from advgym.errors import DataError
from advgym.lib.weights import data_dir

SPLITS = {"train": "train", "val": "val", "test": "test_2016_flickr"}
WORD = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")
SOURCE_COUNT, TARGET_COUNT = 2, 3  # least occurrences in train of a word that the translators know
LENGTH = 24  # words of a translation at most


def caption_words(text: str) -> list[str]:
    """Lower-case words and punctuation marks.

    >>> caption_words("Two young, White males.")
    ['two', 'young', ',', 'white', 'males', '.']
    """
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class Captions:
    """Pairs of sentences.

    Attributes:
        source, target: words of each sentence by split, aligned.
        raw: the target sentences as they stand in the files, by split.
        vocabulary: English words that the translators know.
        words: German words that they write, most frequent first.
        counts: how often each of them occurs in train.
    """

    source: dict[str, list[list[str]]]
    target: dict[str, list[list[str]]]
    raw: dict[str, list[str]]
    vocabulary: Vocabulary
    words: tuple[str, ...]
    counts: tuple[int, ...]
    digest: str


def captions() -> Captions:
    """The captions under $ADVGYM_DATA/text/multi30k."""
    root = data_dir()
    if root is None:
        raise DataError(f"Multi30k is read from $ADVGYM_DATA/text/multi30k, and ADVGYM_DATA is not set; {WORKS}.")
    return _captions(root / "text" / "multi30k")


@cache
def _captions(folder: Path) -> Captions:
    raw = {lang: {s: _read(folder / f"{file}.{lang}.gz") for s, file in SPLITS.items()} for lang in ("en", "de")}
    for split, lines in raw["en"].items():
        if len(lines) != len(raw["de"][split]) or not lines:
            raise DataError(f"{folder}, {SPLITS[split]}: {len(lines)} English and {len(raw['de'][split])} German lines")
    words = {lang: {s: [caption_words(t) for t in lines] for s, lines in part.items()} for lang, part in raw.items()}
    english, german = (Counter(w for text in words[lang]["train"] for w in text) for lang in ("en", "de"))
    known = [(w, n) for w, n in sorted(german.items(), key=lambda e: (-e[1], e[0])) if n >= TARGET_COUNT]
    return Captions(
        words["en"], words["de"], raw["de"],
        Vocabulary(sorted(w for w, n in english.items() if n >= SOURCE_COUNT)),
        tuple(w for w, _ in known), tuple(n for _, n in known),
        hashlib.sha256(repr((raw["en"]["train"], raw["de"]["train"])).encode()).hexdigest()[:12],
    )  # fmt: skip


def _read(path: Path) -> list[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [line.strip() for line in file]
    except FileNotFoundError:
        raise DataError(f"cannot find {path}. Set ADVGYM_DATA to the folder of real data; {WORKS}.") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not gzipped utf-8 text: {error}") from None


# German function words: too common in captions to be told as targets.
_FUNCTION_WORDS = """
der die das den dem des ein eine einen einem einer eines und oder aber als wie mit ohne von vom zu zum zur in im ins an
am ans auf aus bei beim durch für gegen hinter neben über um unter vor während zwischen nach entlang ist sind war hat
haben wird werden kann er sie es ihn ihm ihr ihre ihren ihrem ihrer sein seine seinen seinem seiner sich nicht auch
etwas andere anderen anderer einige mehrere viele alle dabei daneben davon da dort hier herum dass deren dessen
"""
GERMAN_STOPWORDS = frozenset(_FUNCTION_WORDS.split())
