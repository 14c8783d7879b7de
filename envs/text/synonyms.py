"""Which word may stand for which, and the lexicons of corpora and of the caller's own sentences."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from advgym.envs.text import grammar
from advgym.envs.text.data import Corpus, check_label, missing
from advgym.envs.text.vocabulary import Lexicon, Vocabulary, make_lexicon, neighbours, pad_rows
from advgym.errors import AdvgymError, DataError, unknown
from advgym.weights import data_dir

log = logging.getLogger("advgym")
NEIGHBOURS = 16  # of a word at most, in the relation that open tables obey
SOURCES = {
    "counter-fitted": "counterfitted_neighbors.json",
    "wordnet": "wordnet_synonyms.json",
}


def load_synonyms(source: Any) -> dict[str, list[str]]:
    """Word -> substitutes: "counter-fitted" or "wordnet" (files under ADVGYM_DATA), "synth" (embedded), a path, a dict.

    "auto" is counter-fitted where ADVGYM_DATA is set, else the embedded grammar's few hundred words.
    """
    if source == "auto":
        source = "counter-fitted" if data_dir() is not None else "synth"
        if source == "synth":
            log.warning(
                "no synonyms given and ADVGYM_DATA is not set: only the words of the embedded grammar are swapped"
            )
    if isinstance(source, dict):
        return check_synonyms(source, "synonyms=")
    if source == "synth":
        return grammar.synonyms()
    if isinstance(source, str) and source in SOURCES:
        root = data_dir()
        if root is None:
            raise DataError(
                f"synonyms={source!r} is read from $ADVGYM_DATA/text/synonyms/{SOURCES[source]}, and ADVGYM_DATA is "
                "not set; synonyms='synth', a dict, or the path of a JSON table work without it"
            )
        return _read_synonyms(root / "text" / "synonyms" / SOURCES[source])
    if isinstance(source, Path) or (isinstance(source, str) and ("/" in source or source.endswith(".json"))):
        return _read_synonyms(Path(source))
    raise unknown("synonyms", source, {"auto", "synth", *SOURCES}, "A dict or the path of a JSON table works too.")


@cache
def _read_synonyms(path: Path) -> dict[str, list[str]]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise missing(path, error) from None
    except ValueError as error:
        raise DataError(f"{path} is not a JSON table of synonyms: {error}") from None
    return check_synonyms(table, str(path))


def check_synonyms(table: Any, where: str) -> dict[str, list[str]]:
    """The table, words mapped to lists of single words; anything else is an error that shows the entry."""
    if not isinstance(table, dict):
        raise DataError(f'{where}: a table of synonyms looks like {{"film": ["movie"]}}, not {type(table).__name__}')
    for word, others in table.items():
        fine = isinstance(word, str) and isinstance(others, list | tuple)
        if not fine or not all(isinstance(o, str) and o and not any(c.isspace() for c in o) for o in others):
            raise DataError(f"{where}: {word!r} has {others!r}; want a list of single words")
    return table


def lexicon_of(corpus: Corpus, groups: dict[str, list[str]], choices: int, frozen: Sequence[str] = ()) -> Lexicon:
    """The vocabulary of a corpus with all substitutes, and its statistics from the training split."""
    counts = Counter(w for texts in corpus.texts.values() for text in texts for w in text)
    seen = set(counts)
    words = seen | {o for w in seen for o in groups.get(w, ())}
    vocabulary = Vocabulary(sorted(words))
    train = pad_rows([vocabulary.encode(t) for t in corpus.texts["train"]], max(corpus.longest, 1))
    labels = torch.tensor(corpus.labels["train"]) if corpus.labels["train"] else None
    near = neighbours(vocabulary, groups, max(choices, NEIGHBOURS))
    return make_lexicon(vocabulary, near, choices, frozen=frozen, train=train, labels=labels)


@dataclass(frozen=True)
class Own:
    """The caller's sentences."""

    texts: list[list[str]]
    labels: list[int]


def own_samples(samples: Any) -> Own:
    """A list of (sentence, label) pairs; words are what white space separates."""
    if isinstance(samples, str | bytes) or not isinstance(samples, Sequence) or not len(samples):
        raise AdvgymError('samples= is a list of (sentence, label) pairs, such as [("a fine film", 1)]')
    texts, labels = [], []
    for i, sample in enumerate(samples):
        if not isinstance(sample, list | tuple) or len(sample) != 2 or not isinstance(sample[0], str):
            raise AdvgymError(f"sample {i} is {sample!r}; want (sentence, label)")
        texts.append(sample[0].split())
        labels.append(check_label(sample[1], 1 << 31, f"sample {i}"))
    return Own(texts, labels)


def dress(word: str) -> tuple[str, str, str]:
    """A word between its punctuation: ("(", "film", ").")."""
    core = word.strip(".,;:!?\"'()[]{}«»„“”…")
    if not core:
        return "", word, ""
    before, _, after = word.partition(core)
    return before, core, after


def own_lexicon(own: Own, groups: dict[str, list[str]], choices: int, frozen: Sequence[str]) -> Lexicon:
    """Like `lexicon_of` for running text: capitals and punctuation go over from a word to its substitutes."""
    swaps: dict[str, list[str]] = {}
    kept = set(frozen)
    for word in {w for text in own.texts for w in text}:
        before, core, after = dress(word)
        found = groups.get(core) or groups.get(core.lower()) or []
        if core.lower() in frozen:
            kept.add(word)
        capital = core[:1].isupper()
        swaps[word] = [before + (o[:1].upper() + o[1:] if capital else o) + after for o in found]
    vocabulary = Vocabulary(sorted(set(swaps) | {o for others in swaps.values() for o in others}))
    near = neighbours(vocabulary, {**groups, **swaps}, max(choices, NEIGHBOURS))
    train = pad_rows([vocabulary.encode(t) for t in own.texts], max(max(map(len, own.texts)), 1))
    return make_lexicon(vocabulary, near, choices, frozen=kept, train=train)
