"""Names of the hub where it cannot be reached: said at once, in place of the minutes of retries of its client."""

from __future__ import annotations

import os
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

from advgym.errors import DataError

PATIENCE = 2.0  # seconds for an answer of any kind
_FLAGS = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("transformers.utils.hub", "_is_offline_mode"),
    ("datasets.config", "HF_HUB_OFFLINE"),
)


def reachable(patience: float = PATIENCE) -> bool:
    """Whether the hub answers anything within so many seconds, through the proxies of the environment."""
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=patience).close()
        except urllib.error.HTTPError:
            pass  # an answer, too
        except (OSError, ValueError):
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)  # the name's resolution has no timeout of its own
    thread.start()
    thread.join(patience)
    return answered.is_set()


def settle(source: str, what: str) -> None:
    """Before the hub's client is asked for a name: where the hub is out of reach the client looks in its cache alone.

    Args:
        source: a name, or a path, for which nothing is asked.
        what: it is a name of, "model" or "dataset".

    Raises:
        DataError: for a model that is not in the cache, either.
    """
    if os.environ.get("HF_HUB_OFFLINE") or Path(source).expanduser().exists():
        return
    gone = not reachable()
    if gone and what == "model" and not _cached(source):
        raise DataError(
            f"the model {source!r} is no local folder, is not in the hub's cache on this machine, and the hub cannot "
            "be reached from here"
        )
    if gone:
        os.environ["HF_HUB_OFFLINE"] = "1"  # for what is imported later, and the rest of this process
        for module, name in _FLAGS:
            if module in sys.modules:
                setattr(sys.modules[module], name, True)


def _cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        return False
