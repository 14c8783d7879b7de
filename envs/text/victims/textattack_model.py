"""A victim of ours as a model of TextAttack's (Morris et al. 2020): `ModelWrapper` around `Victim`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from advgym.core.victim import Victim
from advgym.envs.text.inputs.slots import as_text
from advgym.envs.text.models.classifiers import WordModel
from advgym.errors import AdvgymError


def model_wrapper(victim: Victim | str) -> Any:
    """What `textattack.goal_functions` and `textattack.Attacker` take as a model.

    Args:
        victim: of texts, or the name of one ("mr-cnn"). Labels-only victims answer with one-hot scores.

    The wrapper gives gradients (`get_grad`, one row per word) where the victim embeds words; TextAttack's defaults for
    gradient recipes read word pieces and do not fit such a model.
    """
    from advgym.core.task import load_victim
    from advgym.envs.text.candidates.from_textattack import importable

    ModelWrapper: Any = importable().models.wrappers.ModelWrapper

    made = load_victim(victim) if isinstance(victim, str) else victim
    module = made.module

    class Wrapped(ModelWrapper):
        """Scores of a list of texts, float32 (n, classes)."""

        model = module

        def __call__(self, text_input_list: list[str], **kwargs: Any) -> torch.Tensor:
            with torch.no_grad():
                return made(_plain(text_input_list)).detach().cpu()

        def get_grad(self, text_input: str, **kwargs: Any) -> dict[str, np.ndarray]:
            """Of the loss of the predicted class: {"ids": (words,), "gradient": (words, width)}."""
            if not isinstance(module, WordModel):
                raise AdvgymError(f"victim {made.name!r} embeds no words, so it has no gradients for TextAttack")
            x = as_text(_plain([text_input]), module.vocabulary)
            device = module.embedding.weight.device
            ids, mask = x.tokens(module.remap(x.vocabulary, torch.device("cpu")))
            embedded = module.embedding(ids.to(device)).detach().requires_grad_()
            scores = module.read(embedded, mask.to(device))
            loss = torch.nn.functional.cross_entropy(scores, scores.argmax(1))
            (grad,) = torch.autograd.grad(loss, embedded)
            return {"ids": ids[0].numpy(), "gradient": grad[0].cpu().numpy()}

        def _tokenize(self, inputs: list[str]) -> list[list[str]]:
            return [text.split() for text in _plain(inputs)]

    return Wrapped()


def _plain(texts: Any) -> list[str]:
    """Strings; the columns of a paired input are joined."""
    return [t if isinstance(t, str) else " ".join(t) for t in texts]
