"""Tiny models of transformers with tokenizers of their own, saved as a hub folder would be."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LINES = [
    "a fine film with a good plot , really .",
    "the movie was awful and the acting dull",
    "an unforgettable masterpiece of storytelling",
    "it's a boring mess that doesn't work at all",
    "good acting saves a terrible script",
    "a man sleeps on the couch",
    "nobody is awake in the theatre tonight",
] * 3
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
OTHER = ("<pad>", "</s>", "<s>", "<unk>", "<mask>")


def wordpiece(size=90):
    """A lower-casing WordPiece tokenizer with BERT's template for one text and for pairs."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(BERT)))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.decoder = decoders.WordPiece()
    return _fast(made, ["input_ids", "token_type_ids", "attention_mask"], pad_token="[PAD]", unk_token="[UNK]",
                 cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")  # fmt: skip


def byte_level(size=330, joins=False):
    """A byte-level BPE tokenizer with RoBERTa's template; one that `joins` has tokens of several words."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not joins)
    made.train_from_iterator(LINES, trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(OTHER), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 2), ("</s>", 1)]
    )
    made.decoder = decoders.ByteLevel()
    return _fast(made, ["input_ids", "attention_mask"], pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
                 eos_token="</s>", mask_token="<mask>")  # fmt: skip


def unigram(size=110):
    """A SentencePiece-like unigram tokenizer with T5's template."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(LINES, trainers.UnigramTrainer(
        vocab_size=size, special_tokens=list(OTHER), unk_token="<unk>"))  # fmt: skip
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.decoder = decoders.Metaspace()
    return _fast(made, ["input_ids", "attention_mask"], pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


def _fast(made, names, **special):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=names, model_max_length=40, **special)


def save(model, tokenizer, folder: Path) -> str:
    """Both in one folder, weights as safetensors."""
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def bert(folder: Path, classes=2, size=90) -> str:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    config = BertConfig(vocab_size=size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=40, num_labels=classes,
                        initializer_range=0.5)  # fmt: skip
    return save(BertForSequenceClassification(config), wordpiece(size), folder)


def roberta(folder: Path, joins=False) -> str:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(2)
    config = RobertaConfig(vocab_size=330, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                           intermediate_size=32, max_position_embeddings=42, type_vocab_size=1, num_labels=3,
                           pad_token_id=0, bos_token_id=2, eos_token_id=1, initializer_range=0.5)  # fmt: skip
    return save(RobertaForSequenceClassification(config), byte_level(joins=joins), folder)


def t5(folder: Path) -> str:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(3)
    config = T5Config(vocab_size=110, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0,
                      eos_token_id=1, decoder_start_token_id=0, initializer_factor=4.0, dropout_rate=0.0,
                      tie_word_embeddings=False)  # fmt: skip
    return save(T5ForConditionalGeneration(config), unigram(110), folder)


def _bart_like(kind, folder, **rules):
    import transformers

    torch.manual_seed(4)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=330, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=48, pad_token_id=0,
        bos_token_id=2, eos_token_id=1, decoder_start_token_id=1, init_std=0.6, dropout=0.0, scale_embedding=True,
        forced_eos_token_id=None,
    )  # fmt: skip
    model_class = {"Bart": "BartForConditionalGeneration", "Marian": "MarianMTModel"}[kind]
    model = getattr(transformers, model_class)(config)
    with torch.no_grad():
        model.final_logits_bias.normal_(std=0.5)
    model.generation_config.update(**rules)
    return save(model, byte_level(), folder)


def bart(folder: Path) -> str:
    return _bart_like("Bart", folder, forced_bos_token_id=2, forced_eos_token_id=1)


def marian(folder: Path) -> str:
    return _bart_like("Marian", folder, bad_words_ids=[[0]])


def longer(tokenizer):
    """For prompts with room beside them."""
    tokenizer.model_max_length = 96
    return tokenizer


def gpt2(folder: Path, layers=2) -> str:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(5)
    config = GPT2Config(vocab_size=330, n_positions=96, n_embd=16, n_layer=layers, n_head=2, initializer_range=0.4,
                        bos_token_id=2, eos_token_id=1)  # fmt: skip
    return save(GPT2LMHeadModel(config), longer(byte_level()), folder)


def llama(folder: Path, byte=True) -> str:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(6)
    config = LlamaConfig(vocab_size=330, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=96,
                         initializer_range=0.4, bos_token_id=2, eos_token_id=1, pad_token_id=0)  # fmt: skip
    return save(LlamaForCausalLM(config), longer(byte_level() if byte else unigram()), folder)


def opt(folder: Path) -> str:
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(7)
    config = OPTConfig(vocab_size=330, hidden_size=16, num_hidden_layers=2, ffn_dim=32, num_attention_heads=2,
                       max_position_embeddings=96, word_embed_proj_dim=16, init_std=0.4, pad_token_id=0,
                       bos_token_id=2, eos_token_id=1, dropout=0.0)  # fmt: skip
    return save(OPTForCausalLM(config), longer(byte_level()), folder)
