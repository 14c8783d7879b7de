"""Candidates without a context: what each source gives, how they are joined, kept, and refused."""

import json
import multiprocessing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advgym.core.task import make_task
from advgym.envs.text.candidates import Source, homoglyphs, invisible, read_sources, typos
from advgym.envs.text.candidates.glyphs import plain
from advgym.envs.text.candidates.inflected import synonyms
from advgym.envs.text.candidates.kept import joined, texts_of, words_of
from advgym.envs.text.candidates.lexicons import swaps_of
from advgym.envs.text.constraints.edit_distance import levenshtein
from advgym.envs.text.data import wordnet_files
from advgym.envs.text.perturb.space import Space
from advgym.errors import AdvgymError, DataError

SAMPLES = [("A fine film, really.", 1), ("awful", 0), ("", 0), ("The plot is dull", 0)]
LETTERS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFG", min_size=1, max_size=12)


def victim(texts):
    return [[("awful" in t) * 1.0, 0.5] for t in texts]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# -- characters ------------------------------------------------------------------------------------------------------
@given(LETTERS)
def test_a_typo_is_one_error_inside_the_word(word):
    found = typos.variants(word)
    assert found == typos.variants(word) and len(set(found)) == len(found) and word not in found
    assert bool(found) == (len(word) > 2)
    for other in found:
        assert other[0] == word[0] and other[-1] == word[-1] and not any(c.isspace() for c in other)
        assert levenshtein(word.lower(), other.lower()) <= 2  # a transposition is two, as is ph for f


def test_the_kinds_of_typos_take_turns():
    # Transposed, left out, mistyped, put in, looks alike, sounds alike.
    assert typos.variants("really")[:6] == ["relaly", "relly", "reslly", "reaslly", "re@lly", "reelly"]
    assert "elefant" in typos.variants("elephant") and "film" not in typos.variants("film")
    assert typos.variants("n't") == typos.variants("42") == typos.variants("at") == []


@given(LETTERS)
def test_what_looks_the_same_reads_the_same_after_normalisation(word):
    for other in homoglyphs.variants(word):
        assert other != word and plain(other) == word and len(other) == len(word)
    for other in invisible.variants(word):
        assert plain(other) == word and other.split() == [other] and len(other) > len(word)
    assert [len(v) for v in invisible.variants(word)[:1]] == [2 * len(word) - 1] * (len(word) > 1)
    assert all(sum(a != b for a, b in zip(o, word, strict=True)) == 1 for o in homoglyphs.variants(word)[1:])


# -- tables, joining, keeping ----------------------------------------------------------------------------------------
def test_sources_are_joined_in_turns_and_dressed():
    sources = read_sources([{"film": ["movie", "picture", "film"]}, "typos", "homoglyphs"])
    found = swaps_of(sources, ["Film,", "film", "...", "of"], dress_up=True)
    assert found["film"][:3] == ["movie", typos.variants("film")[0], homoglyphs.variants("film")[0]]
    assert found["Film,"][0] == "Movie," and found["Film,"][1] == typos.variants("Film")[0] + ","
    assert "film" not in found["film"] and found["..."] == []
    assert joined([["a", "b"], [], ["a", "c", "d"]]) == ["a", "b", "c", "d"]


def test_callables_with_and_without_context():
    asked = []

    def near(word):
        asked.append(word)
        return [word, f"{word}s", "two words", "", f"{word}s"]

    (source,) = read_sources(near)
    assert words_of(source, ["b", "a", "a", "c d"]) == {"a": ["as"], "b": ["bs"]}  # the word itself, and text, go
    assert asked == ["a", "b"]

    def inside(words, site):
        return [words[site - 1] + words[site]]

    (source,) = read_sources(inside)
    assert texts_of(source, [["x", "y"], []]) == [[["yx"], ["xy"]], []]
    for wrong, says in (
        (lambda word: "word", "want a list of words"),
        (lambda word: [3], "want a list of words"),
        (lambda a, b, c: [], "takes 3 arguments"),
    ):
        with pytest.raises(AdvgymError, match=says):
            words_of(read_sources(wrong)[0], ["a"])
    short = Source("short", texts=lambda texts: [[] for _ in texts])
    with pytest.raises(AdvgymError, match="0 lists for a sentence of 1 words"):
        texts_of(short, [["a"]])


def _ask(folder, key, queue):
    import os

    os.environ["ADVGYM_CACHE"] = folder
    source = Source("slow", texts=lambda texts: [[[w + "x"] for w in t] for t in texts], key=key)
    queue.put(texts_of(source, [[f"w{i}", "and"] for i in range(60)]))


def test_two_processes_share_a_cache(cache):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    both = [context.Process(target=_ask, args=(str(cache), "k", queue)) for _ in range(2)]
    for process in both:
        process.start()
    found = [queue.get(timeout=60) for _ in both]
    for process in both:
        process.join(60)
    assert found[0] == found[1] == [[[f"w{i}x"], ["andx"]] for i in range(60)]
    files = list(cache.rglob("*"))
    assert len([f for f in files if f.suffix == ".json"]) == 60 and not [f for f in files if f.suffix == ".part"]


def test_words_are_kept_by_what_they_depend_on(cache):
    calls = []

    def source(key):
        return Source("s", words=lambda words: calls.append(key) or {w: [w + key] for w in words}, key=key)

    assert words_of(source("1"), ["a"]) == words_of(source("1"), ["a", "a"]) == {"a": ["a1"]}
    assert words_of(source("2"), ["a"]) == {"a": ["a2"]} and calls == ["1", "2"]
    words_of(source("1"), ["b"])
    words_of(source(""), ["a"])
    words_of(source(""), ["a"])
    assert calls == ["1", "2", "1", "", ""]


@pytest.mark.parametrize(
    ("candidates", "error", "says"),
    [
        ("word-net", AdvgymError, "did you mean 'wordnet'"),
        ("typo", AdvgymError, "did you mean 'typos'"),
        ([], AdvgymError, "at least one source"),
        (["vocabulary", "typos"], AdvgymError, "stands alone"),
        (3, AdvgymError, "unknown candidates"),
        ("none.json", DataError, r"cannot read none\.json"),
        ({"film": ["two words"]}, DataError, "list of single words"),
        ("wordnet:/no/such/folder", DataError, r"cannot read .*data\.noun.*candidates='counter-fitted'"),
        (lambda word: 5, AdvgymError, "want a list of words"),
    ],
)
def test_plain_errors(candidates, error, says):
    with pytest.raises(error, match=says):
        make_task("text/wordswap", victim=victim, samples=SAMPLES, candidates=candidates)


def test_without_the_data_folder_it_is_said_what_works(monkeypatch):
    monkeypatch.delenv("ADVGYM_DATA", raising=False)
    monkeypatch.delenv("NLTK_DATA", raising=False)
    with pytest.raises(DataError, match=r"counterfitted.*ADVGYM_DATA is not set.*'typos'"):
        read_sources("counter-fitted")
    with pytest.raises(DataError, match=r"needs WordNet.*ADVGYM_DATA.*NLTK_DATA"):
        read_sources("wordnet:nltk")


def test_a_table_in_a_file(tmp_path):
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"dull": ["boring"]}))
    task = make_task("text/wordswap", victim=victim, samples=SAMPLES, candidates=[str(file), "invisible"], choices=2)
    b = task.samples("test", [3])
    words = b.lexicon.vocabulary.words
    assert [words[b.payloads[0, 3, c]] for c in range(2)] == ["boring", "d\u200bu\u200bl\u200bl"]
    assert b.mask()[0, 1, 0] and not b.mask()[0, 0].any()  # every word has an invisible form, stop words stay


# -- WordNet ---------------------------------------------------------------------------------------------------------
@pytest.mark.realdata
def test_our_reader_says_what_nltk_says(data_dir, monkeypatch):
    import random
    import warnings

    import nltk

    folder = data_dir / "text" / "nltk_data"
    monkeypatch.setattr(nltk.data, "path", [str(folder), *nltk.data.path])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no other language
        from nltk.corpus.reader.wordnet import WordNetCorpusReader

        theirs = WordNetCorpusReader(str(folder / "corpora" / "wordnet"), None)
    ours = wordnet_files.open_wordnet(str(folder))
    words = ["good", "bad", "films", "ran", "better", "happiest", "quickly", "geese", "axes", "saw", "moving", "xyzzy"]
    words += random.Random(0).sample(sorted(w for w in ours._index["n"] if "_" not in w), 60)
    for word in words:
        for part in "nvar":
            have = [(s.words, part) for s in ours.synsets(word, part)]
            want = [tuple(lemma.name() for lemma in s.lemmas()) for s in theirs.synsets(word, part)]
            assert sorted(h[0] for h in have) == sorted(want), (word, part)
        direct = {
            a.name().lower()
            for part in "nvar"
            for s in theirs.synsets(word, part)
            for lemma in s.lemmas()
            if lemma.name().lower() in ours.lemmas(word, part)
            for a in lemma.antonyms()
        }
        assert direct <= ours.antonyms(word), word
    for word in ("film", "run", "good", "fast"):
        counted = {
            p: sum(x.count() for s in theirs.synsets(word, p) for x in s.lemmas() if x.name() == word) for p in "nvar"
        }
        assert counted[ours.likely(word)] == max(counted.values())


@pytest.mark.realdata
def test_substitutes_take_the_form_of_the_word(data_dir):
    found = wordnet_files.open_wordnet(str(data_dir / "text" / "nltk_data"))
    assert {"movie", "picture"} <= set(synonyms(found, "film"))
    assert {"movies", "pictures"} <= set(synonyms(found, "films"))
    assert "movie" not in synonyms(found, "films")
    assert "speaking" in synonyms(found, "talking") and "spoke" not in synonyms(found, "talked")
    assert synonyms(found, "xyzzy") == [] and "films" not in synonyms(found, "films")
    for word in ("films", "running", "moved", "bigger", "happiest", "children"):
        for other in synonyms(found, word):
            assert other.isalpha() and other.islower(), (word, other)


@pytest.mark.realdata
def test_sources_over_movie_reviews(data_dir):
    from advgym.envs.text.data import corpora as data

    corpus = data.movie_reviews()
    texts, labels = ({s: v[:200] for s, v in part.items()} for part in (corpus.texts, corpus.labels))
    few = data.Corpus("few", texts, labels, corpus.classes)
    for name in (
        f"wordnet:{data_dir}/text/nltk_data",
        "typos",
        ["homoglyphs", "invisible"],
    ):
        space = Space(few, {"candidates": name, "stopwords": True, "antonyms": "auto"}, 8, dress_up=False)
        words = space.lexicon.vocabulary.words
        table = space.table()[:-1]
        here = (table >= 0).any(1)
        share = sum(bool(here[space.lexicon.vocabulary.index[w]]) for t in few.texts["test"] for w in t)
        assert share > 800, name  # of about 3,600 words, a third of them stop words
        assert not here[[space.lexicon.vocabulary.index[w] for w in ("the", "not")]].any()
        for word in ("good", "bad"):
            assert not {words[i] for i in table[space.lexicon.vocabulary.index[word]].tolist() if i >= 0} & {
                "bad",
                "good",
            }
