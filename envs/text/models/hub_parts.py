"""Language models that candidates and constraints ask: by name of the hub or by local folder, with their tokenizer."""

from __future__ import annotations

from typing import Any

import torch

from advgym.envs.text.models.hub_heads import check_complete
from advgym.errors import DataError
from advgym.lib.extras import need
from advgym.lib.hub import settle


def load_part(name: str, kind: str, what: str) -> tuple[Any, Any]:
    """(tokenizer, model in evaluation mode, on the GPU where there is one).

    Args:
        name: of the hub, or a local folder with config.json, tokenizer.json and model.safetensors.
        kind: the class of transformers that reads it, such as "AutoModel".
        what: wants it, for the message where it cannot be had.

    Raises:
        DataError: where the name is not on this machine and cannot be fetched.
    """
    settle(name, "model")
    transformers = need("transformers", what)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        model, info = getattr(transformers, kind).from_pretrained(
            name, use_safetensors=True, output_loading_info=True
        )  # fmt: skip
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise DataError(
            f"{what}: cannot load {name!r} ({type(error).__name__}: {str(error).splitlines()[0][:160]}). It is a name "
            "of the hub or a local folder with config.json, tokenizer.json and model.safetensors. Without it: "
            "candidates='counter-fitted', 'wordnet', 'typos', 'vocabulary' or a table; similarity='' and perplexity=''"
        ) from None
    if kind != "AutoModel":  # which has no head; a pooler that the checkpoint lacks is not read
        check_complete(name, model, info, f"model for {what}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return tokenizer, model.eval().requires_grad_(False).to(device)
