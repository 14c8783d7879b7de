"""Texts and synonyms: the embedded generator, Movie Reviews, and the caller's own sentences."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from advgym.envs.text.data import grammar, news
from advgym.errors import DataError, unknown
from advgym.lib.content import digest, stamp
from advgym.lib.weights import data_dir

SIZES = {"train": 5000, "test": 1000}
DATASETS = ("synth-reviews", "synth-long-reviews", "synth-headlines", "mr")
WORKS = "text/synth-wordswap, text/synth-paraphrase and text/synth-headline need no files"
CONTRACTION = re.compile(r"^(.+?)(n't|'s|'re|'ve|'ll|'d|'m)$")
# Function words of English: never sites on real text, for a swapped one seldom leaves a sentence.
_FUNCTION_WORDS = """
a an the this that these those some any no each every either neither all both few many much more most other some such
own same so too very i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself
she her hers herself it its itself they them their theirs themselves who whom whose which what where when why how am is
are was were be been being have has had having do does did doing will would shall should can could may might must ought
ca wo n't 's 're 've 'll 'd 'm not nor only just and but or if because as until while than then once though although
unless whether of at by for with about against between among into through during before after above below to from up
down in out on off over under again further here there now ever never also yet still one two s t re ve ll d m
"""
STOPWORDS = frozenset(_FUNCTION_WORDS.split())


@dataclass(frozen=True)
class Corpus:
    """Splits of (texts as word lists, labels).

    Attributes:
        gaps: of every text, what stands between its words (`spacing`); None: one blank.
        trained: the split whose statistics are public, "train" as a rule; "" where nobody knows what a victim has seen.
    """

    name: str
    texts: dict[str, list[list[str]]]
    labels: dict[str, list[int]]
    classes: tuple[str, ...]
    digest: str = ""
    gaps: dict[str, list[list[str]]] | None = None
    trained: str = "train"

    @property
    def sizes(self) -> dict[str, int]:
        """Samples of each split."""
        return {split: len(texts) for split, texts in self.texts.items()}

    def gap_rows(self) -> Iterator[list[str]]:
        """The gaps of every text of every split."""
        return (row for part in (self.gaps or {}).values() for row in part)

    @property
    def longest(self) -> int:
        """Words of the longest text."""
        return max((len(text) for texts in self.texts.values() for text in texts), default=0)


@cache
def reviews() -> Corpus:
    """Short generated reviews; label 1 is praise."""
    texts = {
        split: [grammar.short_review(grammar.review_rng(split, i, 0), i % 2) for i in range(size)]
        for split, size in SIZES.items()
    }
    labels = {split: [i % 2 for i in range(size)] for split, size in SIZES.items()}
    return Corpus("synth-reviews", texts, labels, ("blame", "praise"))


def _label(split: str | int, index: int) -> int:
    """Labels take turns; where a seed draws the samples, it draws them too."""
    return int(grammar.review_rng(split, index, 4).integers(2)) if isinstance(split, int) else index % 2


def drawn_labels(seed: int, count: int) -> list[int]:
    """Labels of the reviews that a seed draws."""
    return [_label(seed, i) for i in range(count)]


def drawn_reviews(seed: int, count: int) -> list[list[str]]:
    """Short reviews that a seed draws."""
    return [grammar.short_review(grammar.review_rng(seed, i, 0), _label(seed, i)) for i in range(count)]


def drawn_headlines(seed: int, count: int) -> tuple[list[list[str]], list[list[str]]]:
    """Short news that a seed draws, and their headlines."""
    pairs = [news.article(grammar.review_rng(seed, i, 2)) for i in range(count)]
    return [text for text, _ in pairs], [head for _, head in pairs]


def _long(split: str | int, index: int) -> list[tuple[grammar.Meaning, list[str]]]:
    return grammar.long_review(grammar.review_rng(split, index, 1), _label(split, index))


LONG_SIZES = {"train": SIZES["train"] // 2, "test": SIZES["test"]}


@cache
def long_reviews() -> Corpus:
    """Generated reviews of 3-5 sentences, each ending with a full stop."""
    texts = {s: [[w for _, said in _long(s, i) for w in said] for i in range(n)] for s, n in LONG_SIZES.items()}
    labels = {split: [i % 2 for i in range(size)] for split, size in LONG_SIZES.items()}
    return Corpus("synth-long-reviews", texts, labels, ("blame", "praise"))


LongReview = list[tuple[list[str], list[list[str]]]]  # per sentence: its words, its five paraphrases


def wordings(split: str | int, count: int | None = None) -> list[LongReview]:
    """The same reviews sentence by sentence, with the paraphrases of each; `count` of a seed that draws them."""
    out = []
    for i in range(LONG_SIZES[str(split)] if count is None else count):
        draw = grammar.review_rng(split, i, 3)
        out.append(
            [(said, [[*p, "."] for p in grammar.paraphrases(draw, m, said[:-1])]) for m, said in _long(split, i)]
        )
    return out


@cache
def headlines() -> tuple[Corpus, dict[str, list[list[str]]]]:
    """Generated short news (no class labels) and the words of their headlines."""
    pairs = {s: [news.article(grammar.review_rng(s, i, 2)) for i in range(n)] for s, n in SIZES.items()}
    texts = {split: [text for text, _ in part] for split, part in pairs.items()}
    heads = {split: [head for _, head in part] for split, part in pairs.items()}
    return Corpus("synth-headlines", texts, {split: [] for split in texts}, ()), heads


# -- real text -----------------------------------------------------------------------------------------------
def split_words(text: str) -> list[str]:
    """Words of a lower-case tokenised sentence, contractions apart (film's: film 's), as in the 1,000-sample sets.

    >>> split_words("it's a film that doesn't work .")
    ['it', "'s", 'a', 'film', 'that', 'does', "n't", 'work', '.']
    """
    out: list[str] = []
    for word in text.split():
        found = CONTRACTION.match(word)
        out.extend(found.groups() if found else (word,))
    return out


def missing(path: Path, error: OSError) -> DataError:
    """The error for a file that cannot be read: its name, and what works without it."""
    return DataError(f"cannot read {path}: {error.strerror}. Set ADVGYM_DATA to the folder of real data; {WORKS}.")


def _lines(path: Path) -> list[str]:
    """The lines of a utf-8 file, or a DataError that says what works without it."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise missing(path, error) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not utf-8 text: {error}") from None


def read_jsonl(path: Path, classes: int) -> tuple[list[list[str]], list[int]]:
    """Lines of {"text": str, "label": int}."""
    texts, labels = [], []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            text, label = entry["text"], entry["label"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise DataError(f'{path}, line {number}: want {{"text": "...", "label": 0}}, not {line[:60]!r}') from None
        texts.append(_words(text, f"{path}, line {number}"))
        labels.append(check_label(label, classes, f"{path}, line {number}"))
    return texts, labels


def read_labelled(path: Path, classes: int) -> tuple[list[list[str]], list[int]]:
    """Lines of `label text`, words taken as they stand."""
    texts, labels = [], []
    for number, line in enumerate(_lines(path), 1):
        label, _, text = line.partition(" ")
        if not label.isdigit():
            raise DataError(f"{path}, line {number}: want `label text`, not {line[:60]!r}")
        texts.append(text.split())
        labels.append(check_label(int(label), classes, f"{path}, line {number}"))
    return texts, labels


def _words(text: Any, where: str) -> list[str]:
    if not isinstance(text, str):
        raise DataError(f"{where}: the text is a string, not {type(text).__name__}")
    return split_words(text)


def check_label(label: Any, classes: int, where: str) -> int:
    """The label, in [0, classes)."""
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
        raise DataError(f"{where}: labels are 0 to {classes - 1}, not {label!r}")
    return label


def mr_folder(dataset: str) -> Path:
    """The folder of "mr", or of a local path with the same files."""
    if dataset == "mr":
        root = data_dir()
        if root is None:
            raise DataError(f"Movie Reviews are read from $ADVGYM_DATA/text/mr, and ADVGYM_DATA is not set; {WORKS}.")
        return root / "text" / "mr"
    path = Path(dataset)
    if path.is_dir():
        return path
    if "/" in dataset or path.exists():
        raise DataError(f"{dataset} is no folder; a dataset is a folder with train.jsonl and test.jsonl; {WORKS}.")
    raise unknown("dataset", dataset, DATASETS, "A local folder with train.jsonl and test.jsonl works too.")


def movie_reviews(dataset: str = "mr") -> Corpus:
    """MR sentences (Pang & Lee, 2005) or a local folder like it; test is TextFooler's 1,000 where present."""
    folder = mr_folder(dataset)
    return _movie_reviews(dataset, folder, stamp(folder))


def digest_of(corpus: Corpus) -> str:
    """What a victim's recipe says of Movie Reviews, or of a folder like them: there the test split, too."""
    return corpus.digest if corpus.name == "mr" else digest(corpus.digest, corpus.texts, corpus.labels)


@lru_cache(maxsize=8)
def _movie_reviews(dataset: str, folder: Path, written: tuple[Any, ...]) -> Corpus:
    train = read_jsonl(folder / "train.jsonl", 2)
    held = folder / "mr-1000.txt"
    test = read_labelled(held, 2) if held.is_file() else read_jsonl(folder / "test.jsonl", 2)
    for split, (texts, _) in (("train", train), ("test", test)):
        if not texts:
            raise DataError(f"the {split} split in {folder} holds no texts")
    seen = hashlib.sha256(repr(train).encode()).hexdigest()[:12]
    return Corpus(
        dataset, {"train": train[0], "test": test[0]}, {"train": train[1], "test": test[1]},
        ("negative", "positive"), seen,
    )  # fmt: skip
