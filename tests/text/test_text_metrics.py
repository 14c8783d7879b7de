"""Columns of text results: words, characters, validity; perplexity and similarity by tiny models made here."""

import copy
import math

import pytest
import tiny_hub
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym import DataError, attack, make_task, verify
from advgym.envs.text.measures import validity
from advgym.envs.text.measures.columns import COLUMNS, char_edit, edit_distance, words_changed
from advgym.envs.text.measures.named_models import pairs, per_row, perplexity_column, similarity_column, strings_of

TASK = "text/synth-wordswap"
FEW = st.text("abcż \U0001d4b6", max_size=40)


def levenshtein(one, other):
    """The plain table."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        new = [i]
        for j, b in enumerate(other, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (a != b)))
        row = new
    return row[-1]


@settings(max_examples=200, deadline=None)
@given(FEW, FEW)
def test_edit_distance_is_levenshteins(one, other):
    assert edit_distance(one, other) == levenshtein(one, other) == edit_distance(other, one)
    assert 0 <= char_edit(one, other) <= 1 and char_edit(one, one) == 0


def test_edit_distance_of_long_texts():
    one, other = "abc" * 300, "acb" * 290 + "zz"
    assert edit_distance(one, other) == levenshtein(one, other)
    assert char_edit("", "") == 0 and char_edit("", "abc") == 1


@pytest.mark.parametrize(
    ("one", "other", "many"),
    [("a b c", "a b c", 0), ("a b c", "a x c", 1), ("a b c", "a c", 1), ("a b c", "a b x c", 1), ("", "a b", 2),
     ("a b", "", 2), ("a b c", "A b c", 1)],
)  # fmt: skip
def test_words_changed(one, other, many):
    assert words_changed(one, other) == (many, len(one.split()))


@pytest.fixture(scope="module")
def result():
    return attack(TASK, "greedy", episodes=12, lanes=12, queries=60)


def test_every_row_is_measured_as_its_texts_are(result):
    task = make_task(TASK, knowledge="score", queries=60)
    batch = task.samples("test", [s.id for s in result.samples])
    form = batch.load([s.perturbation for s in result.samples])
    old, new = batch.inputs(batch.null()).strings(), batch.inputs(form).strings()
    kept = validity.score(old, new)
    for i, s in enumerate(result.samples):
        assert set(s.columns) == {"kept", "words_changed", "words_share", "char_edit"}
        assert s.columns["kept"] == pytest.approx(kept[i]) and s.columns["words_changed"] == s.distance
        assert s.columns["words_share"] == pytest.approx(s.distance / len(old[i].split()))
        assert s.columns["char_edit"] == pytest.approx(levenshtein(old[i], new[i]) / max(len(old[i]), len(new[i])))


def test_valid_successes_are_stated_beside_successes(result):
    kept = result.columns["kept"]
    many = sum(s.success and s.columns["kept"] >= validity.bar() for s in result.samples)
    assert kept.bar == validity.bar() == 0.58 and kept.success_rate == pytest.approx(many / result.attacked)
    assert kept.success_rate <= result.success_rate
    assert kept.success_ci[0] <= kept.success_rate <= kept.success_ci[1]
    assert verify(result) == []
    other = copy.deepcopy(result)
    other.samples[0].columns["kept"] += 0.05
    assert any("kept is" in line for line in verify(other))


def test_no_agent_sees_validity(result):
    from advgym import make

    env = make(TASK, 2)
    obs, _ = env.reset(seed=0)
    assert "kept" not in obs and "kept" not in env.context


def test_the_table_of_words_is_named():
    about = COLUMNS.about()["kept"]
    assert "grammar" in about and f"{validity.calibration()['intercept']:g}" in about


def test_members_of_a_bundle_are_averaged():
    assert per_row([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0] and per_row([], 0) == []
    assert strings_of(["a"]) == ["a"]


# -- named models ----------------------------------------------------------------------------------------------------
def gpt2(folder):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=330, n_positions=40, n_embd=16, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=1)
    return tiny_hub.save(GPT2LMHeadModel(config), tiny_hub.byte_level(), folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"perplexity": gpt2(root / "lm"), "similarity": tiny_hub.bert(root / "encoder")}


def sample():
    batch = make_task(TASK).samples("test", [0, 1, 2])
    form = batch.random(3)
    form[2] = -1
    return batch, form


def test_perplexity_is_the_models_own(models):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    batch, form = sample()
    found = perplexity_column(models["perplexity"])(batch, form)
    tokenizer = AutoTokenizer.from_pretrained(models["perplexity"])
    model = AutoModelForCausalLM.from_pretrained(models["perplexity"]).eval()
    for text, value in zip(pairs(batch, form)[1], found["perplexity"], strict=True):
        ids = torch.tensor([[2, *tokenizer(text, add_special_tokens=False)["input_ids"][:38]]])
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=ids).loss)
        assert value == pytest.approx(math.exp(loss), rel=0.02)
    assert found["perplexity_ratio"][2] == pytest.approx(1.0)


def test_similarity_is_a_cosine(models):
    """Of the means of the encoder's last hidden states."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (c.from_pretrained(models["similarity"]) for c in (AutoTokenizer, AutoModel))

    class Two:
        """Inputs of two rows; a form picks its texts."""

        def null(self):
            return [0, 0]

        def inputs(self, form):
            return [["a fine film", "a boring mess", "a fine film"][i] for i in form]

    found = similarity_column(models["similarity"])(Two(), [1, 2])["similarity"]
    with torch.no_grad():
        one, other = (model.eval()(**tokenizer(t, return_tensors="pt")).last_hidden_state.mean(1)
                      for t in ("a fine film", "a boring mess"))  # fmt: skip
    want = float(torch.nn.functional.cosine_similarity(one, other))
    assert found == pytest.approx([want, 1.0], abs=1e-5) and want < 0.999


def test_named_models_are_measured_stored_and_verified(models):
    r = attack(TASK, "random-search", episodes=4, lanes=4, queries=8, measures=models)
    assert {"perplexity", "perplexity_ratio", "similarity", "kept"} <= set(r.samples[0].columns) == set(r.columns)
    assert r.columns_about["perplexity"] == models["perplexity"] and verify(r) == []
    r.columns_about["similarity"] = "nowhere/at-all"
    with pytest.raises(DataError, match="nowhere/at-all"):
        verify(r)


@pytest.mark.parametrize("column", ["perplexity", "similarity"])
def test_a_missing_model_is_named_before_anything_is_attacked(column):
    with pytest.raises(DataError, match=r"no/such-model.*Without it"):
        attack(TASK, "random-search", episodes=2, measures={column: "no/such-model"})


@pytest.mark.realdata
def test_movie_reviews_have_a_valid_success_rate(data_dir):
    r = attack("text/mr-wordswap", "greedy", episodes=20, victim="mr-bag", queries=100)
    assert 0 < r.columns["kept"].success_rate <= r.success_rate and "counter-fitted" in r.columns_about["kept"]
