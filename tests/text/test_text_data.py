import json

import pytest
import torch

from advgym.core.task import make_task
from advgym.envs.text.candidates import lexicons
from advgym.envs.text.data import corpora, grammar, news
from advgym.errors import AdvgymError, DataError


def test_each_word_has_one_meaning():
    table = grammar.synonyms()  # raises on a word in two synsets
    assert not set(table) & {w for f in grammar.FRAMES for w in news.literals(f)}
    for word, others in table.items():
        assert len(others) <= 6 and all(word in table[o] for o in others)
        assert word in grammar.review_words() or word in news.news_words()


def test_samples_depend_on_their_index_alone():
    first = corpora.reviews()
    again = [grammar.short_review(grammar.review_rng("test", i, 0), i % 2) for i in (7, 3)]
    assert [first.texts["test"][i] for i in (7, 3)] == again
    assert max(map(len, first.texts["train"])) <= grammar.SHORT
    assert not set(map(tuple, first.texts["test"][:20])) & set(map(tuple, first.texts["train"][:20]))
    assert abs(sum(first.labels["test"]) / 1000 - 0.5) < 0.01


def meaning(words):
    """Words with every synonym replaced by the first of its synset, sorted."""
    table = grammar.synonyms()
    return sorted({min([w, *table[w]]) for w in words if w in table})


def test_paraphrases_keep_every_meaning_that_all_wordings_of_the_frame_have():
    for i in range(100):
        draw = grammar.review_rng("test", i, 1)
        for said_meaning, said in grammar.long_review(draw, i % 2):
            others = grammar.paraphrases(draw, said_meaning, said[:-1])
            assert len(others) == 5 and len({tuple(o) for o in others}) == 5
            polar = {min(w.split()) for part in (grammar.PRAISE, grammar.BLAME) for w in part.values()}
            want = [m for m in meaning(said) if m in polar]
            for other in others:
                assert [m for m in meaning(other) if m in polar] == want
                assert len(other) < grammar.SENTENCE and other != said[:-1]


def test_headlines_say_what_the_article_says():
    for i in range(200):
        text, head = news.article(grammar.review_rng("test", i, 2))
        assert len(text) <= news.ARTICLE and len(head) < news.HEADLINE
        parts = (news.SUBJECTS, news.VERBS, news.OBJECTS, news.PLACES, news.MOODS)
        found = {token for part in parts for token, words in part.items() if set(words.split()) & set(text)}
        assert found - {""} == set(head)


@pytest.fixture
def movie_folder(tmp_path):
    def write(train, test=None):
        (tmp_path / "train.jsonl").write_text("\n".join(train))
        (tmp_path / "test.jsonl").write_text("\n".join(test or train))
        return str(tmp_path)

    corpora._movie_reviews.cache_clear()
    return write


GOOD = json.dumps({"text": "it's a film that doesn't work .", "label": 0})


def test_contractions_are_split(movie_folder):
    found = corpora.movie_reviews(movie_folder([GOOD, GOOD]))
    assert found.sizes == {"train": 2, "test": 2}
    assert found.texts["test"][0] == ["it", "'s", "a", "film", "that", "does", "n't", "work", "."]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json", "train.jsonl, line 2: want"),
        ('{"text": "x"}', "line 2: want"),
        ("[1, 2]", "line 2: want"),
        ('{"text": 5, "label": 0}', "line 2: the text is a string"),
        ('{"text": "x", "label": 2}', "line 2: labels are 0 to 1, not 2"),
        ('{"text": "x", "label": -1}', "labels are 0 to 1"),
        ('{"text": "x", "label": true}', "labels are 0 to 1"),
        ('{"text": "x", "label": 0.5}', "labels are 0 to 1"),
    ],
)
def test_a_malformed_line_is_named(movie_folder, line, says):
    with pytest.raises(DataError, match=says):
        corpora.movie_reviews(movie_folder([GOOD, line]))


def test_missing_files_say_what_works_without_them(monkeypatch, tmp_path):
    with pytest.raises(DataError, match=r"train\.jsonl.*text/synth-wordswap"):
        corpora.movie_reviews(str(tmp_path))
    monkeypatch.delenv("ADVGYM_DATA", raising=False)
    with pytest.raises(DataError, match=r"ADVGYM_DATA is not set.*text/synth-wordswap"):
        make_task("text/mr-wordswap")
    with pytest.raises(DataError, match=r"counterfitted.*candidates='synth'"):
        lexicons.load_synonyms("counter-fitted")
    assert lexicons.load_synonyms("auto") == grammar.synonyms()
    with pytest.raises(DataError, match="is no folder"):
        corpora.movie_reviews("/nowhere/at-all")
    with pytest.raises(AdvgymError, match="unknown dataset 'mrr'; did you mean 'mr'"):
        corpora.movie_reviews("mrr")


def test_synonyms_from_a_dict_or_a_file(tmp_path):
    assert lexicons.load_synonyms({"a": ["b"]}) == {"a": ["b"]}
    file = tmp_path / "own.json"
    file.write_text('{"film": ["movie"]}')
    assert lexicons.load_synonyms(str(file)) == {"film": ["movie"]}
    file.with_name("bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad\.json is not a JSON table"):
        lexicons.load_synonyms(str(file.with_name("bad.json")))
    for wrong in ({"a": "b"}, {"a": ["two words"]}, {"a": [""]}, {1: ["b"]}):
        with pytest.raises(DataError, match="want a list of single words"):
            lexicons.load_synonyms(wrong)
    with pytest.raises(AdvgymError, match="did you mean 'wordnet'"):
        lexicons.load_synonyms("word-net")
    with pytest.raises(DataError, match=r"none\.json"):
        lexicons.load_synonyms("none.json")


def test_capitals_and_punctuation_go_over():
    assert lexicons.dress("(Film).") == ("(", "Film", ").") and lexicons.dress("...") == ("", "...", "")
    words = lexicons.own_samples([("The Film, a FILM: film.", 0)]).texts[0]
    assert [lexicons.dressed(w, "movie") for w in words if "film" in w.lower()] == ["Movie,", "Movie:", "movie."]


def test_log_odds_are_those_of_the_training_split():
    corpus = corpora.reviews()
    lexicon = lexicons.lexicon_of(corpus, grammar.synonyms(), 6)
    count = [[sum(t.count(w) for t, y in zip(corpus.texts["train"], corpus.labels["train"], strict=True) if y == label)
              for w in ("flick", "feature")] for label in (0, 1)]  # fmt: skip
    odds = lexicon.odds[[lexicon.vocabulary.index["flick"], lexicon.vocabulary.index["feature"]]]
    assert count[0][0] > count[1][0] and odds[0] < 0 < odds[1] and count[1][1] > count[0][1]
    assert torch.isfinite(lexicon.odds).all()


@pytest.mark.realdata
def test_movie_reviews_and_their_tables(data_dir):
    import time

    corpus = corpora.movie_reviews()
    assert corpus.sizes == {"train": 8662, "test": 1000}
    started = time.perf_counter()
    lexicon = lexicons.lexicon_of(corpus, lexicons.load_synonyms("counter-fitted"), 8, tuple(corpora.STOPWORDS))
    assert time.perf_counter() - started < 5
    table = json.loads((data_dir / "text/synonyms/counterfitted_neighbors.json").read_text())
    words, index = lexicon.vocabulary.words, lexicon.vocabulary.index
    for text in corpus.texts["test"][:200]:
        for word in text:
            have = [words[i] for i in lexicon.table[index[word]].tolist() if i >= 0]
            assert have == [o for o in table.get(word, []) if o != word][:8]
            assert bool(lexicon.swappable[index[word]]) == (bool(have) and word not in corpora.STOPWORDS)
