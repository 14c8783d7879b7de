"""What a checkpoint is, and embeddings put into any model of transformers without its noticing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from advgym.errors import DataError, VictimError
from advgym.lib.checkpoints import drawn_weights, told

# What a task's checkpoint lacks when it is opened as another's, and what to do with it.
HEADS = {
    "ForMaskedLM": "a masked language model: it gives candidates, candidates='masked-lm:{}'",
    "ForCausalLM": "a language model: it judges texts, perplexity={!r}",
    "LMHeadModel": "a language model: it judges texts, perplexity={!r}",
    "ForQuestionAnswering": "a model that marks answers in a text",
    "ForTokenClassification": "a model that labels each token of a text",
    "ForMultipleChoice": "a model that chooses among several texts",
    "ForPreTraining": "a model before its training for a task",
    "ForConditionalGeneration": "a model that writes: text/seq2seq-wordswap attacks it, victim='seq2seq:{}'",
    "MTModel": "a model that writes: text/seq2seq-wordswap attacks it, victim='seq2seq:{}'",
    "ForSequenceClassification": "a classifier: the classification tasks attack it, victim='transformers:{}'",
    "Model": "a model without a head: it gives similarity={!r}",
}


TRAINED = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")


def kind_of(config: Any, source: str) -> str:
    """What the architecture in a configuration is for, in words."""
    names = list(getattr(config, "architectures", None) or ["a model of an unnamed architecture"])
    said = next((text for end, text in HEADS.items() if names[0].endswith(end)), "a model for another task")
    return f"{names[0]}, {said.format(source)}"


def check_complete(source: str, model: nn.Module, info: Any, wanted: str) -> None:
    """Refuse a checkpoint that lacks weights of the model it is opened as: they would be drawn at random.

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` tells.
        wanted: the kind that was asked for, in words.

    Raises:
        DataError: says what the checkpoint is and what it can be used for.
    """
    lost = drawn_weights(model, info)
    said = f"{source} holds no {wanted}: it is {kind_of(model.config, source)}"
    if lost:
        raise DataError(
            f"{said}. Its weights lack {', '.join(lost[:3])}{' ...' if len(lost) > 3 else ''}, which would be drawn at "
            "random. Fine-tune it and give the folder that save_pretrained wrote then"
        )
    # A head that is left unread: tied weights can make up a whole model of another kind.
    first = (getattr(model.config, "architectures", None) or [""])[0]
    if any(first.endswith(end) and not type(model).__name__.endswith(end) for end in TRAINED) and told(
        info, "unexpected_keys"
    ):
        raise DataError(f"{said}, whose head is not read here")


def answers_of(source: str, config: Any, delta: float) -> str:
    """What a sequence classifier of transformers answers: "" (a class), "logit", "number" or "several" labels.

    One output is the logit of the second of two classes, unless the configuration says regression or a delta is given.

    Args:
        delta: by which a success moves a number; 0 for none.

    Raises:
        VictimError: a regressor without delta, or a classifier with one.
    """
    kind, many = getattr(config, "problem_type", None), int(config.num_labels)
    number = kind == "regression" or (many == 1 and kind is None and delta > 0)
    if number and not delta > 0:
        raise VictimError(
            f"{source} answers {many} number(s) (regression), no classes: say by how much a success moves them, "
            "transformers:SOURCE?delta=0.5, above 0"
        )
    if delta and not number:
        raise VictimError(f"{source} answers {many} label(s), no numbers: delta= is for regression")
    if number:
        return "number"
    if many == 1:
        return "logit"
    return "several" if kind == "multi_label_classification" else ""


def pools_last(config: Any) -> bool:
    """Whether a classifier reads the last position whatever stands there, so that no text may be padded."""
    return getattr(config, "summary_type", None) == "last" and hasattr(config, "mem_len")


@contextmanager
def replaced(model: nn.Module, ids: Tensor, hidden: Tensor) -> Iterator[None]:
    """Within, embeddings of the tokens `ids` are `hidden`, wherever the model looks them up.

    The ids stay what the model is called with: all that it reads off them (the pooled position, masks, positions) is as
    for a plain text. A decoder that is fed the same text one to the right is given the embeddings one to the right.

    Args:
        ids: int64 (n, L).
        hidden: float (n, L, D), as the embedding module answers.
    """
    weight = model.get_input_embeddings().weight  # type: ignore[operator]

    def put(module: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
        asked = given[0]
        if asked.shape == ids.shape and torch.equal(asked, ids):
            return hidden.to(out.dtype)
        if asked.shape == ids.shape and torch.equal(asked[:, 1:], ids[:, :-1]):
            return torch.cat([out[:, :1], hidden[:, :-1].to(out.dtype)], 1)
        if asked.shape == ids.T.shape and torch.equal(asked, ids.T):  # positions first
            return hidden.transpose(0, 1).to(out.dtype)
        raise VictimError(
            f"{type(model).__name__} looks up other tokens than its text's: no gradients in words, use scores"
        )

    tables = {id(m): m for m in model.modules() if getattr(m, "weight", None) is weight and isinstance(m, nn.Embedding)}
    hooks = [m.register_forward_hook(put) for m in tables.values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
