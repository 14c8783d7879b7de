"""Checkpoints of `transformers`: which weights of a model a file did not give."""

from __future__ import annotations

from typing import Any

from torch import nn

from advgym.errors import AdvgymError


def drawn_weights(model: nn.Module, info: Any) -> list[str]:
    """Names of parameters that a checkpoint lacks, or has in another shape: they are drawn at random.

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` tells.
    """
    own = {name for name, _ in model.named_parameters()}
    lost = sorted(k for k in told(info, "missing_keys") if k in own)
    other = [m[0] if isinstance(m, tuple | list) else m for m in told(info, "mismatched_keys")]
    return lost + sorted(str(k) for k in other)


def told(info: Any, key: str) -> Any:
    """An entry of loading information, a dict or an object; () for none."""
    found = info.get(key) if isinstance(info, dict) else getattr(info, key, None)
    return found or ()


def near(model: Any, auto: str, what: str, name: str) -> Any:
    """What was saved beside a model of transformers, found where the model itself came from and nowhere else.

    Args:
        model: that was opened from a folder or a name.
        auto: the class of transformers that opens it, such as "AutoTokenizer".
        what: that in words, for messages; name: as it is passed.

    Raises:
        AdvgymError: it is not there; says how to pass it.
    """
    import transformers

    source = str(getattr(model, "name_or_path", "") or "")
    try:
        if not source:
            raise OSError("it was made from a configuration")
        return getattr(transformers, auto).from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        said = str(error).strip().splitlines()[0] if source else str(error)
        raise AdvgymError(
            f"victim= is a {type(model).__name__} alone, and its {what} is not beside it ({said[:120]}): pass both, "
            f"victim=(model, {name})"
        ) from None
