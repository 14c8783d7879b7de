"""Perplexity by a named language model, and similarity by a named sentence encoder; both only where one is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from advgym.envs.text.constraints.perplexity import open_reader
from advgym.envs.text.constraints.similarity import open_encoder

if TYPE_CHECKING:
    from advgym.core.batch import Batch

WORST = 50.0  # nats per token, at most: exp(50) is still a number


def strings_of(x: Any) -> list[str]:
    """The texts of a batch of inputs, as the victim reads them."""
    return list(x) if isinstance(x, list) else x.strings()


def pairs(batch: Batch, form: Tensor) -> tuple[list[str], list[str]]:
    """(clean, perturbed) texts of every row, `members` of them in a row where a perturbation acts on several."""
    return strings_of(batch.inputs(batch.null())), strings_of(batch.inputs(form))


def per_row(values: Sequence[float], rows: int) -> list[float]:
    """Means over the members of each row."""
    many = len(values) // max(rows, 1)
    return [sum(values[i * many : (i + 1) * many]) / many for i in range(rows)]


def perplexity_column(name: str) -> Callable[[Batch, Tensor], dict[str, list[float]]]:
    """Columns `perplexity` of the perturbed text, and `perplexity_ratio` to that of the clean one.

    Perplexity is the exponential of the mean loss per token under a causal language model, at most exp(50); 1 for a
    text with nothing to predict.

    Args:
        name: hub name or local folder of the language model.

    Raises:
        DataError: where it is not on the machine and cannot be fetched.
    """
    reader = open_reader(name)

    def compute(batch: Batch, form: Tensor) -> dict[str, list[float]]:
        clean, changed = pairs(batch, form)
        before, after = (reader.loss(texts).double().clamp_max(WORST) for texts in (clean, changed))
        found = {"perplexity": after.exp(), "perplexity_ratio": (after - before).exp()}
        return {key: per_row(values.tolist(), len(form)) for key, values in found.items()}

    return compute


def similarity_column(name: str) -> Callable[[Batch, Tensor], dict[str, list[float]]]:
    """Column `similarity`: the cosine of the sentence vectors of the clean and the perturbed text, in [-1, 1].

    Args:
        name: hub name or local folder of the encoder (its last hidden states are averaged: Reimers & Gurevych 2019).

    Raises:
        DataError: where it is not on the machine and cannot be fetched.
    """
    encoder = open_encoder(name)

    def compute(batch: Batch, form: Tensor) -> dict[str, list[float]]:
        clean, changed = pairs(batch, form)
        cosine = (encoder.embed(changed) * encoder.embed(clean)).sum(1).clamp(-1, 1)
        return {"similarity": per_row(cosine.tolist(), len(form))}

    return compute
