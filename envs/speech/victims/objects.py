"""The caller's own models of transformers that hear, with their processors, as they are."""

from __future__ import annotations

from typing import Any

from advgym.core.asking import in_eval
from advgym.core.victim import Victim
from advgym.envs.speech.victims import hub
from advgym.errors import AdvgymError
from advgym.lib.checkpoints import near


def victim_of(model: Any, part: Any, task: str) -> Victim:
    """A victim of a CTC recogniser, an audio classifier or Whisper, its front end inside.

    Args:
        model: a `PreTrainedModel`.
        part: its processor or feature extractor, or a pipeline that holds what is needed; None for what stands beside
            the model's own files.
        task: the task's name.

    Raises:
        AdvgymError: for a part of another kind, or a recogniser without its tokenizer.
    """
    end = next(e for e in hub.KINDS if type(model).__name__.endswith(e))
    if part is None:
        extractor = near(model, "AutoFeatureExtractor", "feature extractor", "processor")
    else:
        extractor = getattr(part, "feature_extractor", part)
    if not hasattr(extractor, "sampling_rate"):
        raise AdvgymError(f"victim=(model, {type(part).__name__}): a model of sound goes with its processor")
    tokenizer = getattr(part, "tokenizer", None)
    if end in ("ForCTC", "ForConditionalGeneration") and tokenizer is None:
        tokenizer = near(model, "AutoTokenizer", "tokenizer", "processor")
    source = str(getattr(model, "name_or_path", "") or type(model).__name__)
    with in_eval(model):
        return hub.wrap(model, extractor, tokenizer, source, end)
