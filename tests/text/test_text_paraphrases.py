"""Sources of paraphrases: tables, rules, the grammar, tiny models; and the tasks that use them."""

import json
import logging
from pathlib import Path

import pytest
import torch

from advgym import attack, make_task, verify
from advgym.envs.text.candidates import paraphrases
from advgym.envs.text.candidates.paraphrases import from_grammar, gather, load_paraphrases, split_sentences
from advgym.envs.text.candidates.rewording import reword, tokens
from advgym.envs.text.data import corpora
from advgym.errors import AdvgymError, DataError
from advgym.lib.weights import cache_in

SAMPLES = [("The plot is dull. I liked it because the cast is good!", 1), ("dull", 0), ("", 0)]
TABLE = {"The plot is dull.": ["What a dull plot.", "the PLOT is dull"], "I liked it because the cast is good!": []}


def votes(texts):
    """1 where a text says "liked" before its fifth word."""
    early = [float("liked" in t.lower().split()[:4]) for t in texts]
    return [[1 - e, e] for e in early]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("it 's fine . it is !", ["it 's fine .", "it is !"]),
        ("Mr. Fox met J. Smith. He left", ["Mr. Fox met J. Smith.", "He left"]),
        ('He said "no." Then ... nothing', ['He said "no."', "Then ... nothing"]),
        ("one", ["one"]),
        ("", []),
        ("what ? ! ?", ["what ?", "!", "?"]),
    ],
)
def test_texts_are_split_into_sentences(text, want):
    assert [" ".join(s) for s in split_sentences(text.split())] == want


@pytest.mark.parametrize(
    ("sentence", "among"),
    [
        ("although it 's slow , the film does n't bore .", "the film does n't bore , although it 's slow ."),
        ("I liked it because the plot moves.", "Because the plot moves, I liked it."),
        ("the film is fast and funny", "the film is funny and fast"),
        ("it 's long , but it is good .", "although it 's long , it is good ."),
        ("It doesn't work.", "It does not work."),
        ("it is not good .", "it 's not good ."),
        ("a dull flick", "all in all , a dull flick"),
    ],
)
def test_rules_say_it_again(sentence, among):
    found = reword(sentence, 20)
    assert len(found) == len(set(found)) and sentence not in found
    assert among in found and not any("'s n't" in f for f in found)


def test_rules_keep_the_words():
    """But for frames and contractions a rewording holds the same words, whatever the sentence."""
    frames = {w for f in ("all in short my view on the whole , i would say that it must be said fact is although",)
              for w in f.split()}  # fmt: skip
    full = {"not": "n't", "is": "'s", "are": "'re", "have": "'ve", "will": "'ll", "wo": "will", "ca": "can", "am": "'m"}
    plain = lambda words: {full.get(w, w) for w in words}  # noqa: E731
    for text in ["when it works , it is a joy and the cast is good", "they ca n't act", "x", "and , but . if", "' ' '"]:
        for other in reword(text, 20):
            assert plain(other.split()) - frames - {"'ll"} <= plain(text.split()) | {"'ll"}, other
    assert tokens("It isn't 'that' bad...") == ["It", "is", "n't", "'that'", "bad", "..."]


def test_the_grammar_paraphrases_what_it_wrote():
    for review in corpora.wordings("test", 20):
        for said, _ in review:
            found = from_grammar(" ".join(said))
            meaning = paraphrases._meaning(said[:-1])
            assert len(found) == 5 == len(set(found)) and found == from_grammar(" ".join(said))
            for other in found:
                same = paraphrases._meaning(other.split()[:-1])
                assert same.frame == meaning.frame and dict(same.slots) == dict(meaning.slots)
    assert from_grammar("the film is a film .") == [] == from_grammar("")


def test_tables_are_read_from_every_kind_of_file(tmp_path):
    want = {"a b .": ["b a ."], "c": ["c !", "oh c"]}
    (tmp_path / "t.json").write_text(json.dumps({" a  b .": ["b a ."], "c": ["c !", "oh  c"]}))
    (tmp_path / "t.tsv").write_text("a b .\tb a .\nc\tc !\nc\toh c\n")
    (tmp_path / "t.csv").write_text('"a b .",b a .\nc,c !,oh c\n\n')
    for name in ("t.json", "t.tsv", "t.csv"):
        assert load_paraphrases(str(tmp_path / name)).table == want == load_paraphrases(tmp_path / name).table
    (tmp_path / "bad.tsv").write_text("only a sentence\n")
    (tmp_path / "bad.json").write_text('{"a": "b"}')
    (tmp_path / "worse.json").write_bytes(b"\xff\xfe")
    for name, message in (("bad.tsv", "row 1"), ("bad.json", "list of sentences"), ("worse.json", "utf-8"),
                          ("none.csv", "without it")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            load_paraphrases(str(tmp_path / name))
    for source in ("rulez", "seq2seq:", "back-translation:one", 3):
        with pytest.raises(AdvgymError, match="paraphrases"):
            load_paraphrases(source)


def test_what_repeats_its_sentence_is_dropped_and_reported(caplog):
    texts = [t.split() for t, _ in SAMPLES]
    with caplog.at_level(logging.WARNING, "advgym"):
        found = gather(texts, load_paraphrases(TABLE), 4)
    assert [o for _, o in found[0]] == [[["What", "a", "dull", "plot."]], []] and found[1:] == [[(["dull"], [])], []]
    assert "1 that only repeat" in caplog.text and "1 of 3 sentences" in caplog.text
    # A table that holds a whole text makes one sentence of it; the last of few sentences takes the rest.
    whole = gather(texts, load_paraphrases({SAMPLES[0][0]: ["Fine."]}), 4)
    assert whole[0] == [(texts[0], [["Fine."]])]
    assert [len(t) for t in gather([["No1.", "No2.", "No3."]], load_paraphrases("rules"), 1, sentences=2)] == [2]
    with pytest.raises(DataError, match="none of the 3 sentences"):
        gather(texts, load_paraphrases({"something else": ["x"]}), 4)


def test_your_own_texts_victim_and_table():
    kind = {"good": ["fine"], "liked": ["enjoyed"]}
    options = {"victim": votes, "samples": SAMPLES, "candidates": kind}
    own = {"I liked it because the cast is good!": ["Because the cast is good I liked it!"],
           "The plot is dull.": ["What a plot, dull!"]}  # fmt: skip
    task = make_task("text/paraphrase", paraphrases=own, **options)
    b = task.samples("test", [0, 1, 2])
    assert b.budgets.tolist() == [[1, 2], [1, 1], [0, 0]]
    p = b.null()
    p[0, 0] = torch.tensor([1, 0])
    p[0, 1] = torch.tensor([b.sentences + (b.versions + 1) * b.width + 4, 0])  # "good" of the paraphrase
    form = b.look(p).form
    assert b.inputs(form).strings() == ["The plot is dull. Because the cast is fine I liked it!", "dull", ""]
    assert b.check(form).all() and b.check(b.random(0)).all()
    line = task.line(b, 0, form[0])
    assert "I liked it because the cast is good! -> Because" in line and "good(->fine)" in line
    html = task.show(b, 0, form[0], torch.tensor(1), torch.tensor(0), task)
    assert html.count("<ins") == 2 and "<script" not in html
    result = attack(task, "joint-greedy", episodes=3, lanes=3)
    assert result.attacked == 2 and verify(result, task=task) == []
    for bad, message in (({"paraphrases": "nonsense"}, "paraphrases"), ({"samples": None}, "samples="),
                         ({"wordings": 0}, "wordings"), ({"candidates": "vocabulary"}, "take tables"),
                         ({"words": -1}, "words"), ({"samples": [("a", 7)]}, "labels are")):  # fmt: skip
        with pytest.raises(AdvgymError, match=message):
            make_task("text/paraphrase", **{**options, **bad})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small BART of random weights with a word-level tokenizer of our own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "dull", "plot", "fine", "film", "is", "the"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=160,
        decoder_start_token_id=2, forced_bos_token_id=None,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_model_by_name_rephrases_and_is_asked_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(paraphrases, "LONGEST", 8)
    sentences = ["the plot is dull", "a fine film"]
    with cache_in(tmp_path):
        for name in (f"seq2seq:{tiny}", f"back-translation:{tiny},{tiny}"):
            source = load_paraphrases(name)
            found = source.rephrase(sentences, 3)
            assert source.slow and [len(f) for f in found] == [3, 3]
            said = {w for f in found for s in f for w in s.split()}
            assert said <= {"a", "dull", "plot", "fine", "film", "is", "the", "<unk>"}
            monkeypatch.setattr(paraphrases, "_load", lambda name: pytest.fail("asked again"))
            assert load_paraphrases(name).rephrase(sentences[::-1], 3) == found[::-1]  # from the disk
            monkeypatch.undo()
            monkeypatch.setattr(paraphrases, "LONGEST", 8)
    assert len(list((tmp_path / "paraphrases").glob("*.json"))) == 2


def test_a_paraphraser_that_returns_the_source_leaves_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        paraphrases, "generate", lambda name, sentences, beams: [[s.upper()] * beams for s in sentences]
    )
    with cache_in(tmp_path), caplog.at_level(logging.WARNING, "advgym"):
        task = make_task("text/paraphrase", victim=votes, samples=SAMPLES[:2], paraphrases="seq2seq:copy", words=0,
                         wordings=2, candidates={})  # fmt: skip
    assert not task.samples("test", [0, 1]).grid.any()
    assert "6 that only repeat" in caplog.text and "0 of 3 sentences" in caplog.text


def test_a_missing_model_is_named_with_what_works_without_it(tmp_path):
    with cache_in(tmp_path), pytest.raises(DataError, match=r"'nobody/nothing' .*'rules', 'synth', a dict"):
        load_paraphrases("seq2seq:nobody/nothing").rephrase(["a film"], 2)


@pytest.mark.realdata
def test_movie_reviews_by_rules_and_by_a_users_table(data_dir, tmp_path):
    task = make_task("text/mr-paraphrase", victim="mr-bag")
    b = task.samples("test", list(range(40)))
    assert (b.grid[:, :3].any((1, 2))).all() and task.sizes["train"] > 8000
    assert b.check(b.random(0)).all() and b.inputs(b.null()).strings()[3].startswith("somewhere in the middle")
    sentence = "it 's hard to imagine that even very small children will be impressed by this tired retread"
    path = tmp_path / "own.tsv"
    path.write_text(f"{sentence}\tHard to imagine: this tired retread won't impress even very small children.\n")
    own = make_task("text/mr-paraphrase", victim="mr-bag", paraphrases=Path(path)).samples("test", [2, 3])
    assert own.grid[:, : own.sentences].sum((1, 2)).tolist() == [1, 0]
    assert own.payload(0, 0, 0).startswith("hard to imagine : this tired retread wo n't impress")
