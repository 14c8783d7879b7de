"""Tiny language models with tokenizers of our own, saved as folders that transformers reads."""

import torch

_WORDS = """
the a is was of and film movie plot story fine good nice awful terrible dull boring really quite very actor scene long
short
"""
WORDS = _WORDS.split()
PIECES = ["##s", "##ly", "##ful", "t", "##ea", "##r"]


def tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from tokenizers.decoders import WordPiece as Decoder
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *WORDS, *PIECES, ".", ","]
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = Decoder()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=40,
    )  # fmt: skip
    fast.save_pretrained(folder)
    return fast


def config(kind, size, **more):
    import transformers

    return getattr(transformers, kind)(
        vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=48, **more,
    )  # fmt: skip


def save(kind, folder, settings):
    import transformers

    torch.manual_seed(3)
    model = getattr(transformers, kind)(settings)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)  # far from uniform, so that ranks are no accident of rounding
    model.save_pretrained(folder)
    return str(folder)


def masked(folder):
    return save("BertForMaskedLM", folder, config("BertConfig", len(tokenizer(folder))))


def encoder(folder):
    return save("BertModel", folder, config("BertConfig", len(tokenizer(folder))))


def causal(folder):
    import transformers

    size = len(tokenizer(folder))
    settings = transformers.GPT2Config(
        vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=48, bos_token_id=2, eos_token_id=3
    )
    return save("GPT2LMHeadModel", folder, settings)
