"""Seconds for the table of choices of 1,000 MR sentences, by source of candidates: cold, and from the cache.

Cold: an empty cache, and tables and corpora read from disk anew. Cached: another process' second time. Both make the
vocabulary, the look-up table and the choices of every sentence; imports are apart. `--masked NAME` adds a masked
language model, `--every` the whole corpus in place of its test split.
"""

from __future__ import annotations

import os
import tempfile

from advgym.envs.text.candidates import homoglyphs, masked_lm, tables
from advgym.envs.text.data import corpora, wordnet_files
from advgym.envs.text.inputs.vocabulary import pad_rows
from advgym.envs.text.perturb.space import Space
from advgym.lib.weights import data_dir
from benchmarks._common import arguments, clock, device_label, table


def forget() -> None:
    """What a process keeps."""
    for kept in (tables._read, wordnet_files.open_wordnet, homoglyphs.alike, masked_lm.open_model):
        kept.cache_clear()


def build(corpus: corpora.Corpus, candidates: object, guard: object) -> tuple[int, float]:
    """(words of the vocabulary, substitutes per word that has any)."""
    options = {"candidates": candidates, "stopwords": True, "antonyms": guard}
    space = Space(corpus, options, 8, dress_up=False)
    texts = corpus.texts["test"]
    clean = pad_rows([space.lexicon.vocabulary.encode(t) for t in texts], corpus.longest)
    if space.whole:
        return len(space.lexicon.vocabulary), float(space.words().sum())
    found = space.substitutes(space.table(), texts, clean) >= 0
    return len(space.lexicon.vocabulary), float(found.sum() / found.any(2).sum())


def main() -> None:
    """Print the table."""
    args = arguments(__doc__.split("\n")[0], masked="", every=0)
    root = data_dir()
    if root is None:
        raise SystemExit("set ADVGYM_DATA to the folder of real data: the sentences are MR's")
    mr = corpora.movie_reviews()
    texts = mr.texts if args.every else dict.fromkeys(("train", "test"), mr.texts["test"])
    labels = mr.labels if args.every else dict.fromkeys(("train", "test"), mr.labels["test"])
    corpus = corpora.Corpus("mr", texts, labels, mr.classes, mr.digest)
    nltk = f"wordnet:{root}/text/nltk_data"
    asked: list[tuple[str, object, object]] = [
        ("counter-fitted", "counter-fitted", False), ("counter-fitted, antonym guard", "counter-fitted", True),
        ("wordnet (JSON)", "wordnet", False), ("wordnet:FOLDER", nltk, False), ("typos", "typos", False),
        ("homoglyphs + invisible", ["homoglyphs", "invisible"], False),
        ("counter-fitted + wordnet:FOLDER + typos", ["counter-fitted", nltk, "typos"], True),
        ("vocabulary", "vocabulary", False),
    ]  # fmt: skip
    if args.masked:
        asked += [(f"masked-lm:{args.masked}", f"masked-lm:{args.masked}", False)]
    rows: list[list[object]] = []
    for name, candidates, guard in asked:
        times, size = [], (0, 0.0)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["ADVGYM_CACHE"] = folder
            for _ in range(2):
                forget()

                def once() -> None:
                    nonlocal size
                    size = build(corpus, candidates, guard)  # noqa: B023

                times.append(clock(once))
        rows.append([name, *times, *size])
    many = sum(len(t) for t in corpus.texts.values()) if args.every else len(corpus.texts["test"])
    head = ["candidates", "cold s", "cached s", "vocabulary", "substitutes per site"]
    table(f"Candidate tables of {many:,} MR sentences, {device_label('cpu')}", head, rows, args.json)


if __name__ == "__main__":
    main()
