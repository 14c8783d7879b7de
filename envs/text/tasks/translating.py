"""Multi30k English to German: translators trained from scratch, and the word-swap task against them."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.envs.text.data import captions
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.vocabulary import Vocabulary, pad_rows
from advgym.envs.text.models import translators
from advgym.envs.text.models.writers import END
from advgym.envs.text.victims import recipes
from advgym.errors import unknown
from advgym.lib.weights import load_or_train

TRANSLATORS = {"gru": translators.Gru, "transformer": translators.Transformer}
DRAWN = 768  # words that the sampled softmax draws
CHUNK = 128  # sentences per forward


def translator(
    name: str, *, model: str, epochs: int = 8, lr: float = 3e-3, batch: int = 64, word_drop: float = 0.0,
    seed: int = 0, **arguments: Any,
) -> Victim:  # fmt: skip
    """An English-German translator with scores (n, T, V) of its own greedy output.

    Its card states BLEU on test_2016_flickr: sacrebleu, 13a, lower case, one reference, greedy.

    Args:
        name: of the victim and its weights.
        model: "gru" or "transformer".
        epochs: of training on the 29,000 pairs of train.
        lr: largest learning rate.
        batch: sentences per step.
        word_drop: probability that a source word is read as unknown in training.
        seed: of initialisation and order.
        arguments: of the model.

    Raises:
        DataError: Multi30k is not there.
    """
    if model not in TRANSLATORS:
        raise unknown("model", model, TRANSLATORS)
    data = captions.captions()
    tokens = len(data.words) + 1

    def train(module: nn.Module) -> dict[str, Any]:
        assert isinstance(module, translators.Translator)
        started = time.process_time()
        x = _inputs(data.source["train"], word_drop > 0, data.vocabulary)
        gone = len(x.vocabulary) - 1
        before, answer = _pairs(data.target["train"], data.words)

        def loss(index: Tensor) -> Tensor:
            part, last = x.take(index), int((answer[index] >= 0).any(0).nonzero().max()) + 1
            if word_drop:
                lost = (torch.rand(part.ids.shape) < word_drop) & (part.ids >= 0)
                part = TextInput(torch.where(lost, gone, part.ids), part.vocabulary)
            embedded, mask = part.embed(module.embedding.weight, module.remap(part.vocabulary, part.device))
            return module.sampled_loss(embedded, mask, before[index, :last], answer[index, :last], DRAWN)

        lengths = torch.tensor([64 * len(t) + len(s) for s, t in zip(data.source["train"], data.target["train"],
                                                                     strict=True)])  # fmt: skip
        recipes.fit(module, len(x), loss, epochs=epochs, lr=lr, batch=batch, seed=seed, lengths=lengths)
        spent = time.process_time() - started
        return {"train_cpu_seconds": round(spent), **{f"bleu_{s}": bleu(module, data, s) for s in ("val", "test")}}

    recipe = {
        "model": model, "digest": data.digest, "length": captions.LENGTH, "tokens": tokens, "drawn": DRAWN,
        "epochs": epochs, "lr": lr, "batch": batch, "word_drop": word_drop, "seed": seed, **arguments,
    }  # fmt: skip
    module, card = load_or_train(
        name, lambda: TRANSLATORS[model](data.vocabulary, tokens, captions.LENGTH, **arguments), train, recipe=recipe
    )
    return Victim(module, name=name, access="gradients", card=card, chunk=CHUNK)


def _inputs(texts: list[list[str]], more: bool, vocabulary: Vocabulary) -> TextInput:
    """Sentences over the known words; the others, and with `more` those dropped, are the last word."""
    full = Vocabulary([*vocabulary.words, "<unknown>"])
    return TextInput(pad_rows([full.encode(t, len(full) - 1) for t in texts], max(map(len, texts))), full)


def _pairs(texts: list[list[str]], words: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """(what stands before each position, what follows), int64 (n, T + 1).

    The answer is -100 at unknown words and after the end, the input one past the begin token at unknown words and -1
    after the end.
    """
    index = {w: i + 1 for i, w in enumerate(words)}
    tokens = len(words) + 1
    begin, unseen = tokens, tokens + 1
    rows = [[index.get(w, unseen) for w in text] for text in texts]
    width = max(map(len, rows)) + 1
    before = pad_rows([[begin, *row] for row in rows], width)
    after = pad_rows([[*row, END] for row in rows], width)
    return before.clamp_min(END), torch.where((after == unseen) | (after < 0), -100, after)


@torch.no_grad()
def translate(module: nn.Module, texts: list[list[str]], words: tuple[str, ...], vocabulary: Vocabulary) -> list[str]:
    """Greedy translations."""
    x = _inputs(texts, False, vocabulary)
    out = []
    for index in torch.arange(len(x)).split(CHUNK):
        for row in module(x.take(index)).argmax(2).tolist():
            row = row[: row.index(END)] if END in row else row
            out.append(" ".join(words[i - 1] for i in row))
    return out


def bleu(module: nn.Module, data: captions.Captions, split: str) -> float:
    """Corpus BLEU of the greedy translations against the raw sentences, both in lower case."""
    import sacrebleu

    said = translate(module, data.source[split], data.words, data.vocabulary)
    return float(sacrebleu.corpus_bleu(said, [data.raw[split]], lowercase=True, force=True).score)
