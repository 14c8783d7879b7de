"""The caller's own image classifiers of transformers, with their processors, as they are."""

from __future__ import annotations

from typing import Any

from advgym.core.asking import in_eval
from advgym.core.victim import Victim
from advgym.envs.image.victims import hub
from advgym.errors import AdvgymError
from advgym.lib.checkpoints import near


def victim_of(model: Any, part: Any, task: str) -> Victim:
    """A victim of an image classifier: images in [0, 1] go through its processor's own preparation, differentiably.

    Args:
        model: a `PreTrainedModel`.
        part: its image processor, or a processor that holds it; None for the one beside the model's own files.
        task: the task's name.

    Raises:
        AdvgymError: for a part of another kind.
    """
    if part is None:
        processor = near(model, "AutoImageProcessor", "image processor", "processor")
    else:
        processor = getattr(part, "image_processor", part)
    if not hasattr(processor, "to_dict") or not hasattr(processor, "preprocess"):
        raise AdvgymError(f"victim=(model, {type(part).__name__}): a model of images goes with its image processor")
    source = str(getattr(model, "name_or_path", "") or type(model).__name__)
    with in_eval(model):
        return hub.wrap(model, processor.to_dict(), source)
