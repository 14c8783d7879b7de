"""Candidates from language models and from TextAttack."""

import sys
from pathlib import Path

import pytest

import advgym
from advgym.core.task import make_task
from advgym.envs.text.candidates import read_sources
from advgym.envs.text.candidates.kept import texts_of
from advgym.errors import AdvgymError, DataError

sys.path.insert(0, str(Path(__file__).parent))
import tiny_language

TEXTS = [
    ["the", "film", "was", "really", "good", "."],
    ["a", "fine", "plot", ",", "teary", "tears"],
    [],
    ["dull"],
    ["."],
]
SAMPLES = [("The film was really good.", 1), ("a dull plot", 0), ("", 0), ("dull", 0)]


def victim(texts):
    return [[("dull" in t) * 1.0, 0.5] for t in texts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_language.masked(tmp_path_factory.mktemp("masked"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def reference(folder, words, place, swap):
    """The library's own ranking of whole words at a mask, one sentence at a time."""
    import transformers

    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    text = " ".join([*words[:place], *swap, *words[place + 1 :]])
    x = tokens(text, return_tensors="pt")
    at = (x["input_ids"][0] == tokens.mask_token_id).nonzero()[0, 0] if "[MASK]" in swap else place + 1
    order = model(**x).logits[0, at].argsort(descending=True).tolist()
    return [w for w in tokens.convert_ids_to_tokens(order) if w in tiny_language.WORDS]


def test_a_masked_model_writes_whole_words_in_its_own_order(folder):
    (source,) = read_sources(f"masked-lm:{folder}")
    assert sorted(source.alphabet()) == sorted([*tiny_language.WORDS, "t"])  # "t" begins a word: it may stand alone
    rows = texts_of(source, TEXTS)
    assert [len(r) for r in rows] == [6, 6, 0, 1, 1]
    for s, i in ((0, 1), (0, 4), (1, 0)):
        want = [w for w in reference(folder, TEXTS[s], i, ["[MASK]"]) if w != TEXTS[s][i]]
        assert [w for w in rows[s][i] if w != "t"] == want
    assert rows[0][5] == rows[1][3] == rows[4][0] == []  # punctuation stays
    assert rows[1][5] and "tears" not in rows[1][5]  # a word of pieces is one mask


def test_without_a_mask_one_forward_gives_the_words_of_every_place(folder):
    (source,) = read_sources(f"unmasked-lm:{folder}")
    rows = texts_of(source, TEXTS)
    for i in range(5):
        want = [w for w in reference(folder, TEXTS[0], i, [TEXTS[0][i]]) if w != TEXTS[0][i]]
        assert [w for w in rows[0][i] if w != "t"] == want


def test_gaps_and_pairs_are_filled(folder):
    (source,) = read_sources(f"masked-lm:{folder}")
    gaps, merges = texts_of(source, TEXTS, "gaps"), texts_of(source, TEXTS, "merges")
    assert [len(r) for r in gaps] == [7, 7, 1, 2, 2] and [len(r) for r in merges] == [5, 5, 0, 0, 0]
    words = TEXTS[0]
    assert [w for w in merges[0][1] if w != "t"] == reference(folder, [*words[:1], "x", *words[3:]], 1, ["[MASK]"])


def test_what_a_model_said_is_read_again(folder, cache, monkeypatch):
    (source,) = read_sources(f"masked-lm:{folder}")
    first = texts_of(source, TEXTS)
    files = sorted(cache.rglob("*.json"))
    assert len(files) == 5
    from advgym.envs.text.candidates.masked_lm import MaskedModel

    monkeypatch.setattr(MaskedModel, "_likeliest", lambda *a: pytest.fail("asked again"))
    assert texts_of(source, TEXTS) == first
    for file in files:
        file.write_bytes(b"{torn")
    monkeypatch.undo()
    monkeypatch.setenv("ADVGYM_CACHE", str(cache))
    assert texts_of(source, TEXTS) == first


def test_tasks_in_context(folder):
    task = make_task("text/wordswap", victim=victim, samples=SAMPLES, candidates=["synth", f"masked-lm:{folder}"],
                     choices=4, antonyms=False)  # fmt: skip
    b = task.samples("test", [0, 1, 2, 3])
    words = b.lexicon.vocabulary.words
    swaps = {words[b.payloads[0, 4, c]] for c in range(4) if b.mask()[0, 4, c]}
    assert len(swaps) == 4 and all(w.endswith(".") for w in swaps)  # in the dress of "good."
    assert not b.mask()[0, 0].any() and not b.mask()[2].any()  # "The" is a stop word
    assert b.check(b.random(0)).all()
    result = advgym.attack(task, "greedy", episodes=4, lanes=4)
    assert result.attacked and advgym.verify(result, task=task) == []
    clare = make_task("text/insert", victim=victim, samples=SAMPLES, candidates=f"masked-lm:{folder}", choices=3,
                      insertions=f"masked-lm:{folder}", antonyms=False)  # fmt: skip
    b = clare.samples("test", [0, 1, 2, 3])
    assert b.mask()[0, 0, 1:4].all() and b.mask()[1, b.wide + 1, 1:4].all()  # a gap; "dull plot" as one word
    assert b.check(b.random(0)).all()


def test_a_model_that_is_not_there_is_named(tmp_path):
    for name in ("masked-lm:/no/such/model", "masked-lm:nobody/nothing"):
        with pytest.raises(
            DataError, match=r"cannot load.*model\.safetensors.*Without it: candidates='counter-fitted'"
        ):
            make_task("text/wordswap", victim=victim, samples=SAMPLES, candidates=name)
    with pytest.raises(AdvgymError, match="lacks what follows the colon"):
        read_sources("masked-lm:")


# -- TextAttack ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def library():
    from advgym.envs.text.candidates.from_textattack import importable

    try:
        return importable()
    except AdvgymError as error:
        pytest.skip(str(error))


def test_transformations_by_name_and_as_objects_with_constraints(library):
    from textattack.constraints.pre_transformation import StopwordModification
    from textattack.transformations import WordSwapNeighboringCharacterSwap

    (source,) = read_sources("textattack:WordSwapRandomCharacterDeletion")
    rows = texts_of(source, TEXTS)
    assert [len(r) for r in rows[0]] == [1, 1, 1, 1, 1, 0] and all(
        len(rows[0][i][0]) + 1 == len(TEXTS[0][i]) for i in range(5)
    )
    swap = WordSwapNeighboringCharacterSwap(random_one=False)
    words = StopwordModification(stopwords={"really", "the"})
    (source,) = read_sources([swap, words])
    rows = texts_of(source, TEXTS)
    assert rows[0][3] == rows[0][0] == [] and "flim" in rows[0][1] and rows[2] == []
    with pytest.raises(AdvgymError, match="names none"):
        read_sources(["typos", words])
    with pytest.raises(AdvgymError, match="did you mean 'WordSwapRandomCharacterDeletion'"):
        read_sources("textattack:WordSwapRandomCharacterDeletio")


def test_what_draws_is_seeded_with_the_sentence(library):
    import random

    (source,) = read_sources("textattack:WordSwapRandomCharacterSubstitution")
    random.seed(1)
    before = random.getstate()
    first = texts_of(source, TEXTS[:2])
    assert random.getstate() == before
    from advgym.envs.text.candidates.from_textattack import _swaps

    made = library.transformations.WordSwapRandomCharacterSubstitution()
    assert [_swaps(made, (), t) for t in TEXTS[:2]] == first


def test_a_task_with_a_transformation(library):
    swap = library.transformations.WordSwapNeighboringCharacterSwap(random_one=False)
    task = make_task("text/wordswap", victim=victim, samples=SAMPLES, candidates=[swap, "synth"], choices=5)
    result = advgym.attack(task, "greedy", episodes=4, lanes=4)
    assert result.attacked == 3 and all(s.valid for s in result.samples)
    assert result.threat["constraint"]["candidates"] == ["WordSwapNeighboringCharacterSwap", "synth"]
    assert advgym.verify(result, task=task) == []
