"""Victims of the text tasks: rows of tasks.toml say which model, which data and how long it trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.envs.text.data import corpora as data
from advgym.envs.text.data import grammar, news
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.vocabulary import Vocabulary, pad_rows
from advgym.envs.text.models import classifiers, writers
from advgym.errors import unknown
from advgym.lib.fit import accuracy, descend
from advgym.lib.weights import load_or_train

SHIPPED = Path(__file__).parents[1] / "weights"
CLASSIFIERS = {"bag": classifiers.Bag, "cnn": classifiers.Convolution, "bert": classifiers.Bert}
WRITERS = {"bart": writers.Bart, "gru": writers.Recurrent}


def fit(
    module: nn.Module,
    size: int,
    loss: Callable[[Tensor], Tensor],
    *,
    epochs: int,
    lr: float,
    batch: int = 64,
    decay: float = 0.01,
    seed: int = 0,
    lengths: Tensor | None = None,
) -> None:
    """AdamW with a linear warm-up over a tenth of the steps and a linear fall to zero; `loss(index)` of a batch.

    With `lengths` int64 (size,), batches hold samples of about the same length.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=decay)
    total = epochs * -(-size // batch)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (0.1 * total + 1), (total - step) / (0.9 * total))
    )

    def order(_: int) -> Sequence[Tensor]:
        whole = torch.randperm(size, generator=generator)
        return whole.split(batch) if lengths is None else _buckets(whole, lengths, batch, generator)

    descend(module, loss, map(order, range(epochs)), optimiser, schedule=rate, clip=1.0)


POOL = 32  # batches that are sorted together


def _buckets(order: Tensor, lengths: Tensor, batch: int, generator: torch.Generator) -> list[Tensor]:
    """Batches of like lengths, in random order."""
    pools = order.split(POOL * batch)
    found = [part for pool in pools for part in pool[lengths[pool].argsort(stable=True)].split(batch)]
    return [found[i] for i in torch.randperm(len(found), generator=generator).tolist()]


def _open(corpus: str) -> tuple[Callable[[], list[data.Corpus]], Vocabulary, str]:
    """The corpora a classifier trains on (made when it does), the words it knows, and what both depend on."""
    if corpus == "synth-reviews":
        return lambda: [data.reviews(), data.long_reviews()], Vocabulary(grammar.review_words()), grammar.digest()
    found = data.movie_reviews(corpus)
    counts = Counter(w for text in found.texts["train"] for w in text)
    vocabulary = Vocabulary(sorted(w for w, count in counts.items() if count > 1))
    return lambda: [found], vocabulary, data.digest_of(found)


def classifier(
    name: str, *, model: str, dataset: str, epochs: int = 5, lr: float = 2e-3, word_drop: float = 0.0,
    smooth: float = 0.0, odds: float = 0.0, batch: int = 64, seed: int = 0, **arguments: Any,
) -> Victim:  # fmt: skip
    """A review classifier with scores (n, 2), differentiable in its word embeddings.

    Args:
        name: of the victim and its weights.
        model: "bag", "cnn" or "bert".
        dataset: "synth-reviews" (short and long ones), "mr", or a local folder like it.
        word_drop: probability that a word is read as unknown in training.
        smooth: label smoothing.
        odds: scale of the words' naive-Bayes log-odds put into one embedding dimension before training (after Wang &
            Manning, 2012); 0 for none.
        epochs: of training.
        lr: largest learning rate.
        batch: samples per step.
        seed: of initialisation and order.
        arguments: of the model.
    """
    if model not in CLASSIFIERS:
        raise unknown("model", model, CLASSIFIERS)
    load, vocabulary, digest = _open(dataset)

    def train(module: nn.Module) -> dict[str, Any]:
        corpora = load()
        texts = [t for c in corpora for t in c.texts["train"]]
        labels = torch.tensor([y for c in corpora for y in c.labels["train"]])
        full = Vocabulary([*vocabulary.words, "<unknown>"])
        x = TextInput(pad_rows([full.encode(t, len(full) - 1) for t in texts], max(map(len, texts))), full)
        if odds:
            _prior(module, x.ids, labels, len(vocabulary), odds)

        def loss(index: Tensor) -> Tensor:
            part = x.take(index)
            if word_drop:
                gone = (torch.rand(part.ids.shape) < word_drop) & (part.ids >= 0)
                part = TextInput(torch.where(gone, len(full) - 1, part.ids), full)
            return F.cross_entropy(module(part), labels[index], label_smoothing=smooth)

        fit(module, len(x), loss, epochs=epochs, lr=lr, batch=batch, seed=seed)
        card: dict[str, Any] = {}
        for c in corpora:
            held = TextInput(pad_rows([full.encode(t, len(full) - 1) for t in c.texts["test"]], c.longest), full)
            card[f"clean_accuracy {c.name}"] = accuracy(module, held, torch.tensor(c.labels["test"]))
        return {"clean_accuracy": card[f"clean_accuracy {corpora[0].name}"], **card}

    recipe = {
        "model": model, "corpus": dataset, "digest": digest, "vocabulary": vocabulary.digest[:12],
        "epochs": epochs, "lr": lr, "word_drop": word_drop, "smooth": smooth, "odds": odds, "batch": batch,
        "seed": seed, **arguments,
    }  # fmt: skip
    module, card = load_or_train(
        name, lambda: CLASSIFIERS[model](vocabulary, 2, **arguments), train, recipe=recipe,
        shipped=SHIPPED / f"{name}.safetensors",
    )  # fmt: skip
    return Victim(module, name=name, access="gradients", card=card)


@torch.no_grad()
def _prior(module: nn.Module, ids: Tensor, labels: Tensor, size: int, scale: float) -> None:
    """Write the log-odds of each word into dimension 0 of the embedding."""
    seen = [torch.zeros(size + 1).index_put_((ids[labels == y][ids[labels == y] >= 0],), torch.ones(1), True)
            for y in (0, 1)]  # fmt: skip
    share = [(s + 1) / (s + 1).sum() for s in seen]
    value = (share[1] / share[0]).log()[:size]
    module.embedding.weight[classifiers.WORDS :, 0] = scale * value  # type: ignore[union-attr, operator]


def writer(
    name: str, *, model: str, epochs: int = 10, lr: float = 2e-3, batch: int = 64, seed: int = 0,
    **arguments: Any,
) -> Victim:  # fmt: skip
    """A headline writer with scores (n, T, V) of its own greedy output.

    Args:
        name: of the victim and its weights.
        model: "bart" or "gru".
        epochs: of training.
        lr: largest learning rate.
        batch: samples per step.
        seed: of initialisation and order.
        arguments: of the model.
    """
    if model not in WRITERS:
        raise unknown("model", model, WRITERS)
    vocabulary, tokens, length = Vocabulary(news.news_words()), len(news.HEAD_WORDS) + 1, news.HEADLINE

    def train(module: nn.Module) -> dict[str, Any]:
        corpus, heads = data.headlines()
        x = {s: TextInput(pad_rows([vocabulary.encode(t) for t in texts], news.ARTICLE), vocabulary)
             for s, texts in corpus.texts.items()}  # fmt: skip
        labels = {s: head_tokens(part) for s, part in heads.items()}
        target = labels["train"].clamp_min(writers.END)
        counted = torch.arange(length) <= (labels["train"] >= 0).sum(1, keepdim=True)
        answer = torch.where(counted, target, -100)

        def loss(index: Tensor) -> Tensor:
            logits = module.teach(x["train"].take(index), target[index])  # type: ignore[operator]
            return F.cross_entropy(logits.flatten(0, 1), answer[index].flatten())

        fit(module, len(target), loss, epochs=epochs, lr=lr, batch=batch, seed=seed)
        with torch.no_grad():
            out = module(x["test"]).argmax(2)
        wrong = (out != labels["test"].clamp_min(writers.END)).any(1)
        return {"clean_accuracy": 1.0 - wrong.float().mean().item()}

    recipe = {"model": model, "digest": grammar.digest(), "epochs": epochs, "lr": lr, "batch": batch,
              "seed": seed, **arguments}  # fmt: skip
    module, card = load_or_train(
        name, lambda: WRITERS[model](vocabulary, tokens, length, **arguments), train, recipe=recipe,
        shipped=SHIPPED / f"{name}.safetensors",
    )  # fmt: skip
    return Victim(module, name=name, access="gradients", card=card)


def head_tokens(heads: list[list[str]]) -> Tensor:
    """True headlines as tokens, int64 (n, T), padded with -1."""
    index = {word: i + 1 for i, word in enumerate(news.HEAD_WORDS)}
    return pad_rows([[index[w] for w in head] for head in heads], news.HEADLINE)
