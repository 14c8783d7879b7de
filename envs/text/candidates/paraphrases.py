"""Where paraphrases of sentences come from: a table, the embedded grammar, rules, or models of transformers by name."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from advgym.envs.text.candidates.rewording import reword
from advgym.envs.text.data import grammar
from advgym.errors import DataError, unknown
from advgym.lib.hub import settle
from advgym.lib.weights import cache_dir

log = logging.getLogger("advgym")
SOURCES = ("rules", "synth", "seq2seq:NAME", "back-translation:NAME1,NAME2")
WITHOUT = "paraphrases='rules', 'synth', a dict or the path of a .json, .csv or .tsv table work without it"
CHUNK = 32  # sentences that a model rephrases at once
LONGEST = 128  # tokens of a generated sentence at most
# A full stop after these ends no sentence.
ABBREVIATIONS = frozenset(("mr", "mrs", "ms", "dr", "st", "jr", "sr", "vs", "etc", "prof", "no", "vol", ".", ".."))


@dataclass(frozen=True)
class Source:
    """A source by name: `rephrase(sentences, most)` gives a list of paraphrases for each sentence.

    `table` is the caller's own, for which sentences are looked up as they stand; `slow` marks models.
    """

    name: str
    rephrase: Callable[[list[str], int], list[list[str]]]
    table: dict[str, list[str]] | None = None
    slow: bool = False


def load_paraphrases(source: Any) -> Source:
    """A source from the option `paraphrases`: a name, a dict {sentence: [paraphrase, ...]}, or the path of a table.

    - "rules": rewordings by rules (`rewording`); needs no files.
    - "synth": other templates of the embedded grammar, for the sentences that it writes.
    - "seq2seq:NAME": beams of a transformers encoder-decoder, by hub name or folder.
    - "back-translation:NAME1,NAME2": into another language and back.
    - a path: .json {sentence: [...]}, .csv or .tsv with rows `sentence, paraphrase, paraphrase ...`; sentences may
      come again.

    Raises:
        DataError: for a file or a model that cannot be read; the message says what works without it.
    """
    if isinstance(source, dict):
        return _table("a table", check_paraphrases(source, "paraphrases="))
    if isinstance(source, Path) or (isinstance(source, str) and Path(source).suffix in (".json", ".csv", ".tsv")):
        return _table(str(source), read_table(Path(source)))
    if source == "rules":
        return Source("rules", lambda sentences, most: [reword(s, most) for s in sentences])
    if source == "synth":
        return Source("synth", lambda sentences, most: [from_grammar(s)[:most] for s in sentences])
    kind, _, names = str(source).partition(":")
    models = [n.strip() for n in names.split(",") if n.strip()]
    if kind == "seq2seq" and len(models) == 1:
        return Source(str(source), partial(_cached, str(source), partial(generate, models[0])), slow=True)
    if kind == "back-translation" and len(models) == 2:
        return Source(str(source), partial(_cached, str(source), partial(_back, models[0], models[1])), slow=True)
    raise unknown("paraphrases", source, SOURCES, "A dict or the path of a .json, .csv or .tsv table works too.")


# -- sentences -----------------------------------------------------------------------------------------------
def split_sentences(words: Sequence[str]) -> list[list[str]]:
    """Words of a text as sentences: each ends with ".", "!" or "?", standing alone or attached.

    >>> split_sentences("it 's fine . mr . fox is great !".split())
    [['it', "'s", 'fine', '.'], ['mr', '.', 'fox', 'is', 'great', '!']]
    """
    out: list[list[str]] = [[]]
    for i, word in enumerate(words):
        out[-1].append(word)
        bare = word.rstrip("\"')").lower()
        before = words[i - 1].lower() if i and bare == "." else bare.rstrip(".")
        ends = bare.endswith((".", "!", "?")) and not bare.endswith("..")
        initial = len(before) == 1 and before.isalpha()
        if ends and not initial and before not in ABBREVIATIONS and i + 1 < len(words):
            out.append([])
    return out if out[0] else []


def gather(
    texts: Sequence[Sequence[str]],
    source: Source,
    most: int,
    tidy: Callable[[str], list[str]] = str.split,
    sentences: int | None = None,
) -> list[list[tuple[list[str], list[list[str]]]]]:
    """The sentences of each text with their paraphrases as words.

    A text that a table holds as a whole counts as one sentence. Paraphrases that only say the sentence again, up to
    spaces, capitals and punctuation, are dropped, and so are repeated and empty ones; how many is logged.

    Args:
        texts: as words.
        source: of the paraphrases.
        most: paraphrases of a sentence at most.
        tidy: a paraphrase as words.
        sentences: of a text at most; what follows counts as part of the last one.

    Raises:
        DataError: where a table has none of the sentences.
    """
    known = source.table or {}
    parts = [[list(t)] if " ".join(t) in known and t else split_sentences(t) for t in texts]
    if sentences is not None:
        last = sentences - 1
        parts = [[*t[:last], [w for s in t[last:] for w in s]] if len(t) > sentences else t for t in parts]
    distinct = list(dict.fromkeys(" ".join(s) for text in parts for s in text))
    found, same = {}, 0
    for sentence, others in zip(distinct, source.rephrase(distinct, most), strict=True):
        seen, kept = {squash(sentence)}, []
        for other in others:
            words = tidy(other)
            same += squash(other) == squash(sentence)
            if words and squash(other) not in seen:
                seen.add(squash(other))
                kept.append(words)
        found[sentence] = kept[:most]
    if same:
        log.warning(
            "paraphrases from %s: %d that only repeat their sentence were dropped; %d of %d sentences have any",
            source.name, same, sum(map(bool, found.values())), len(found),
        )  # fmt: skip
    if source.table is not None and distinct and not any(found.values()):
        raise DataError(
            f"{source.name} has a paraphrase for none of the {len(distinct)} sentences; the first one is "
            f"{distinct[0]!r}, and a table is looked up by the sentence as it stands, or by the whole text"
        )
    return [[(s, found[" ".join(s)]) for s in text] for text in parts]


def squash(text: str) -> str:
    """What is left of a text without capitals, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", text.lower())


# -- tables --------------------------------------------------------------------------------------------------
def _table(name: str, table: dict[str, list[str]]) -> Source:
    return Source(name, lambda sentences, most: [table.get(s, []) for s in sentences], table)


def check_paraphrases(table: Any, where: str) -> dict[str, list[str]]:
    """The table with white space normalised; anything but sentences with lists of sentences is an error."""
    if not isinstance(table, dict):
        raise DataError(f'{where}: want {{"a sentence": ["another wording"]}}, not {type(table).__name__}')
    out: dict[str, list[str]] = {}
    for sentence, others in table.items():
        if not isinstance(sentence, str) or not isinstance(others, list | tuple) or not all(
            isinstance(o, str) for o in others
        ):  # fmt: skip
            raise DataError(f"{where}: {sentence!r} has {others!r}; want a list of sentences")
        out.setdefault(" ".join(sentence.split()), []).extend(" ".join(o.split()) for o in others)
    return out


def read_table(path: Path) -> dict[str, list[str]]:
    """A JSON object, or rows of a sentence and its paraphrases."""
    try:
        if path.suffix == ".json":
            return check_paraphrases(json.loads(path.read_text(encoding="utf-8")), str(path))
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",") if row]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; {WITHOUT}") from None
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a utf-8 table of paraphrases: {error}") from None
    out: dict[str, list[str]] = {}
    for number, (sentence, *others) in enumerate(rows, 1):
        if not others:
            raise DataError(f"{path}, row {number}: want a sentence and at least one paraphrase, not {sentence[:60]!r}")
        out.setdefault(" ".join(sentence.split()), []).extend(" ".join(o.split()) for o in others if o.strip())
    return out


# -- the embedded grammar ------------------------------------------------------------------------------------
def from_grammar(sentence: str) -> list[str]:
    """The other templates of a sentence that the grammar wrote; nothing for any other sentence."""
    words = sentence.split()
    end = [words.pop()] if words and words[-1] == "." else []
    meaning = _meaning(words)
    if meaning is None:
        return []
    draw = np.random.default_rng([3, zlib.crc32(sentence.encode())])
    return [" ".join([*p, *end]) for p in grammar.paraphrases(draw, meaning, words)]


def _meaning(words: list[str]) -> grammar.Meaning | None:
    synset = {word: name for name, group in grammar.SYNSETS.items() for word in group}
    for frame, templates in enumerate(grammar.FRAMES):
        for template in templates:
            parts = template.split()
            if len(parts) == len(words) and all(p[0] == "{" or p == w for p, w in zip(parts, words, strict=True)):
                slots = {p[1:-1]: synset.get(w, "") for p, w in zip(parts, words, strict=True) if p[0] == "{"}
                if all(slots.values()):
                    return grammar.Meaning(frame, tuple(slots.items()), False)
    return None


# -- models --------------------------------------------------------------------------------------------------
def _cached(
    name: str, make: Callable[[list[str], int], list[list[str]]], sentences: list[str], most: int
) -> list[list[str]]:
    """What a model said, kept on disk after every chunk: an interrupted table goes on where it stopped."""
    key = hashlib.sha256(json.dumps([name, most]).encode()).hexdigest()[:16]
    path = cache_dir() / "paraphrases" / f"{key}.json"
    known: dict[str, list[str]] = read_table(path) if path.is_file() else {}
    todo = [s for s in dict.fromkeys(sentences) if s not in known]
    for start in range(0, len(todo), CHUNK):
        part = todo[start : start + CHUNK]
        known.update(zip(part, make(part, most), strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps(known), encoding="utf-8")
        fresh.replace(path)
    return [known[s] for s in sentences]


def _back(there: str, back: str, sentences: list[str], most: int) -> list[list[str]]:
    """Every beam of the first model, each brought back by the second one."""
    foreign = generate(there, sentences, most)
    flat = iter(generate(back, [f for beams in foreign for f in beams], 1))
    return [[one for _ in beams for one in next(flat)] for beams in foreign]


def generate(name: str, sentences: Iterable[str], beams: int) -> list[list[str]]:
    """`beams` outputs of a transformers encoder-decoder for each sentence, by beam search."""
    import torch

    texts = list(sentences)
    tokenizer, model = _load(name)
    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=LONGEST)
    batch = {k: v.to(model.device) for k, v in batch.items() if k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        out = model.generate(
            **batch, num_beams=max(beams, 1), num_return_sequences=beams, do_sample=False, max_new_tokens=LONGEST
        )
    said = tokenizer.batch_decode(out, skip_special_tokens=True)
    return [[s.strip() for s in said[i * beams : (i + 1) * beams]] for i in range(len(texts))]


_models: dict[str, Any] = {}


def _load(name: str) -> Any:
    if name not in _models:
        settle(name, "model")
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForSeq2SeqLM.from_pretrained(name, use_safetensors=True).eval()
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"no transformers encoder-decoder {name!r} on this machine ({str(error).splitlines()[0]}): give the "
                f"name of one in the local hub cache, or its folder; {WITHOUT}"
            ) from None
        _models[name] = (tokenizer, model)
    return _models[name]
