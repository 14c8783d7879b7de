"""Checkpoints of transformers: every classifier answers alike to texts and to embeddings, others are refused."""

import sys
from pathlib import Path

import pytest
import torch

from advgym.core.task import load_victim, make_task
from advgym.envs.text.victims import hub
from advgym.errors import AdvgymError, DataError, VictimError

sys.path.insert(0, str(Path(__file__).parents[1] / "text"))
import tiny_hub

SAMPLES = [("a fine film with a good plot , really .", 1), ("  awful\n", 0), ("the movie\twas awful and dull", 0),
           ("good acting saves  a terrible script", 1), ("a man sleeps on the couch </s> ok", 0), ("", 1)]  # fmt: skip
GROUPS = {"fine": ["unforgettable", "good"], "awful": ["terrible"], "film": ["movie", "masterpiece"],
          "dull": ["boring"], "man": ["zebra"], "good": ["fine"], "script": ["plot", "storytelling"]}  # fmt: skip
BERT_LIKE = {"vocab_size": 90, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 32, "max_position_embeddings": 40, "initializer_range": 0.5}  # fmt: skip
BYTES = {"vocab_size": 330, "bos_token_id": 2, "eos_token_id": 1, "initializer_range": 0.5}
LLAMA_LIKE = {**BYTES, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
SEQ2SEQ = {**BYTES, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
           "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 0.6,
           "max_position_embeddings": 64, "pad_token_id": 0, "decoder_start_token_id": 1}  # fmt: skip
GPT2 = {**BYTES, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
MAKES = {
    "bert": ("Bert", "wordpiece", BERT_LIKE),
    "roberta": ("Roberta", "byte_level", {**BERT_LIKE, **BYTES, "pad_token_id": 0, "max_position_embeddings": 50}),
    "distilbert": ("DistilBert", "wordpiece", {"vocab_size": 90, "dim": 16, "n_layers": 2, "n_heads": 2,
                   "hidden_dim": 32, "max_position_embeddings": 40, "initializer_range": 0.5}),
    "albert": ("Albert", "wordpiece", {**BERT_LIKE, "embedding_size": 8}),
    "electra": ("Electra", "wordpiece", {**BERT_LIKE, "embedding_size": 8}),
    "deberta-v2": ("DebertaV2", "wordpiece", {**BERT_LIKE, "relative_attention": True, "pos_att_type": "p2c|c2p",
                   "position_buckets": 8, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0, "pooler_hidden_size": 16,
                   "pooler_dropout": 0.0, "pooler_hidden_act": "gelu"}),
    "xlnet": ("XLNet", "byte_level", {"vocab_size": 330, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32,
              "pad_token_id": 0, "initializer_range": 0.5}),
    "gpt2": ("GPT2", "byte_level", GPT2),
    "gpt2-padded": ("GPT2", "byte_level", {**GPT2, "pad_token_id": 1}),  # the padding is the end of every text, too
    "gpt-neox": ("GPTNeoX", "byte_level", {**BYTES, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
                 "num_attention_heads": 2, "max_position_embeddings": 64}),
    "opt": ("OPT", "byte_level", {"vocab_size": 330, "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 64, "word_embed_proj_dim": 16, "init_std": 0.5,
            "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}),
    "llama": ("Llama", "byte_level", LLAMA_LIKE),
    "gemma": ("Gemma", "byte_level", {**LLAMA_LIKE, "head_dim": 8, "pad_token_id": 0}),  # which scales its embeddings
    "bart": ("Bart", "byte_level", {**SEQ2SEQ, "scale_embedding": True}),
    "mbart": ("MBart", "byte_level", SEQ2SEQ),
    "t5": ("T5", "unigram", {"vocab_size": 110, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
           "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "initializer_factor": 4.0}),
}  # fmt: skip


def made(kind, folder, head="ForSequenceClassification", **more):
    import transformers

    name, tokenizer, settings = MAKES[kind]
    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(**{**settings, "num_labels": 3, **more})
    model = getattr(transformers, f"{name}{head}")(config)
    return tiny_hub.save(model, getattr(tiny_hub, tokenizer)(), folder)


def alone(folder, text):
    """The library's own answer to one text."""
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    given = transformers.AutoTokenizer.from_pretrained(folder)([text], return_tensors="pt")
    if "distil" in model.config.model_type:
        given.pop("token_type_ids")
    return model(**given).logits[0].detach()


def edited(batch):
    """Every other editable word of each text, swapped."""
    form = batch.null()
    for lane in range(len(batch)):
        sites = batch.site_mask()[lane].nonzero().squeeze(1).tolist()[::2]
        for e, site in enumerate(sites[: form.shape[1]]):
            form[lane, e] = torch.tensor([site, int(batch.choice_mask(torch.tensor([site]), torch.tensor([lane]))[0]
                                                    .nonzero()[-1])])  # fmt: skip
    return batch.look(form).form


@pytest.mark.parametrize("kind", MAKES)
def test_texts_and_embeddings_agree(kind, tmp_path, caplog):
    samples = SAMPLES if kind != "t5" else [s for s in SAMPLES if "</s>" not in s[0]]  # which T5 refuses itself
    samples = samples if kind not in ("bart", "mbart") else [s for s in samples if "</s>" not in s[0]]
    folder = made(kind, tmp_path)
    task = make_task("text/wordswap", victim=f"transformers:{folder}", samples=samples, candidates=GROUPS, share=1.0,
                     antonyms=False, stopwords=False)  # fmt: skip
    assert task.threat.knowledge == "white-box", caplog.text
    batch = task.samples("test", list(range(len(samples))))
    form, plain = edited(batch), batch.inputs(batch.null())
    assert plain.strings() == [t for t, _ in samples]
    ones = torch.ones(form.shape[:2])
    for x, soft in ((plain, batch.relaxed(form, 0 * ones)), (batch.inputs(form), batch.relaxed(form, ones))):
        want = torch.stack([alone(folder, t) for t in x.strings()])
        for got in (task.victim(x), task.victim(x.strings()), task.victim(soft)):
            assert torch.allclose(got, want, atol=1e-5 * float(want.abs().max())), (got - want).abs().amax(1)
    half = ones.mul(0.5).requires_grad_()
    (slope,) = torch.autograd.grad(task.victim(batch.relaxed(form, half))[:, 0].sum(), half)
    assert slope.isfinite().all() and slope[0].abs().max() > 0
    if kind in ("gpt2", "bart"):
        eps, way = 1e-3, torch.zeros_like(ones)
        way[0, 0] = 1.0
        with torch.no_grad():
            up, down = (task.victim(batch.relaxed(form, half + s * eps * way))[0, 0] for s in (1, -1))
        assert ((up - down) / (2 * eps)).item() == pytest.approx(slope[0, 0].item(), rel=0.05, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "head", "says"),
    [
        ("bert", "ForMaskedLM", "BertForMaskedLM, a masked language model: it gives candidates"),
        ("bert", "ForQuestionAnswering", "a model that marks answers"),
        ("bert", "ForTokenClassification", "labels each token"),
        ("distilbert", "Model", "DistilBertModel, a model without a head"),
        ("gpt2", "LMHeadModel", "GPT2LMHeadModel, a language model"),
        ("bart", "ForConditionalGeneration", "victim='seq2seq:"),
    ],
)
def test_a_checkpoint_that_is_no_classifier_is_refused(kind, head, says, tmp_path):
    folder = made(kind, tmp_path, head)
    with pytest.raises(DataError, match=f"holds no sequence classifier: it is .*{says}"):
        load_victim(f"transformers:{folder}")


def test_other_kinds_are_told_apart_too(tmp_path):
    folder = made("t5", tmp_path / "t5")
    with pytest.raises(DataError, match=r"holds no model that writes: it is T5ForSequenceClassification, a classifier"):
        load_victim(f"seq2seq:{folder}")
    plain = made("bert", tmp_path / "bert")
    with pytest.raises(AdvgymError, match="BertForSequenceClassification, a classifier"):
        make_task("text/wordswap", victim=lambda t: [[1, 0]] * len(t), samples=SAMPLES, candidates=f"masked-lm:{plain}")


@pytest.mark.parametrize(
    ("more", "options", "says"),
    [
        ({"num_labels": 1, "problem_type": "regression"}, {}, "regression.*delta=0.5"),
        ({"problem_type": "regression", "num_labels": 2}, {}, "regression"),
        ({"num_labels": 2}, {"delta": 1.0}, "no numbers: delta= is for regression"),
    ],
)
def test_numbers_need_a_bound_and_classes_none(more, options, says, tmp_path):
    with pytest.raises(VictimError, match=says):
        hub.load(made("bert", tmp_path, **more), **options)
