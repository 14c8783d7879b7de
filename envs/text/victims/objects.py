"""The caller's own models of transformers that read texts, with their tokenizers, as they are."""

from __future__ import annotations

import copy
from typing import Any

from advgym.core.asking import in_eval
from advgym.core.victim import Victim
from advgym.envs.text.victims import hub, hub_seq2seq
from advgym.errors import AdvgymError
from advgym.lib.checkpoints import near


def victim_of(model: Any, part: Any, task: str) -> Victim:
    """A victim of a sequence classifier, or of a seq2seq model for tasks on those.

    Nothing of the model is changed: weights, mode and configuration stay as they are.

    Args:
        model: a `PreTrainedModel`.
        part: its tokenizer, or a processor that holds it; None for the one beside the model's own files.
        task: the task's name.

    Raises:
        AdvgymError: for a part of another kind, or a model of another kind of answers than the task's.
    """
    tokenizer = (
        getattr(part, "tokenizer", part) if part is not None else near(model, "AutoTokenizer", "tokenizer", "tokenizer")
    )
    if not hasattr(tokenizer, "get_vocab"):
        raise AdvgymError(f"victim=(model, {type(part).__name__}): a model of texts goes with its tokenizer")
    name = type(model).__name__
    writes, wanted = not name.endswith("ForSequenceClassification"), "seq2seq" in task
    if writes != wanted:
        other = "text/seq2seq-wordswap" if writes else "text/wordswap"
        raise AdvgymError(f"victim= is a {name}, which is for {other}, not for {task}: task={other!r}")
    source = str(getattr(model, "name_or_path", "") or name)
    twin = copy.copy(model)  # the same weights; what a reader sets of the configuration is its own
    twin.config = copy.deepcopy(model.config)
    with in_eval(model), in_eval(twin):
        return hub_seq2seq.wrap(twin, tokenizer, source) if writes else hub.wrap(twin, tokenizer, source)
