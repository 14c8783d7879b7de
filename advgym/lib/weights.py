"""Trained weights: shipped, cached, or trained now. Always safetensors, never pickle."""

from __future__ import annotations

import atexit
import getpass
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from advgym.errors import DataError
from advgym.lib.content import digest, tensor_bytes

Module = TypeVar("Module", bound=nn.Module)

log = logging.getLogger("advgym")
_forced: set[str] = set()  # victims that the next load trains anew
_cache: ContextVar[Path | None] = ContextVar("advgym_cache", default=None)


def retrain(name: str) -> None:
    """Train `name` anew when it is next loaded, and keep that in the cache."""
    _forced.add(name)


def cache_dir() -> Path:
    """Where trained victims and tables are kept: $ADVGYM_CACHE, else ~/.cache/advgym; or as `cache_in` says.

    Whoever has no home (a container's uid without a passwd entry) gets a folder that goes with the process.
    """
    if (found := _cache.get()) is not None:
        return found
    if given := os.environ.get("ADVGYM_CACHE"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "advgym"
    except RuntimeError:
        return _homeless()


@cache
def _homeless() -> Path:
    folder = tempfile.mkdtemp(prefix="advgym-")  # of this process alone: a name known ahead could be somebody else's
    atexit.register(_leave, folder, os.getpid())
    log.warning(
        "no home folder is known: set ADVGYM_CACHE, or %s goes with this process, and all trained in it", folder
    )
    return Path(folder)


def _leave(folder: str, process: int) -> None:
    if os.getpid() == process:  # not a fork of it
        shutil.rmtree(folder, ignore_errors=True)


def spare_torch_a_name() -> None:
    """Name torch's folder of compiled code where the uid has no name.

    Making an optimiser imports torch's compiler, whose default folder is called after `getpass.getuser()`.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_dir() / "torchinductor")


spare_torch_a_name()  # here, since whatever trains imports this module before it makes an optimiser


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Within it, another cache: for victims that must not be seen in the shared one."""
    token = _cache.set(folder)
    try:
        yield
    finally:
        _cache.reset(token)


def data_dir() -> Path | None:
    """$ADVGYM_DATA, the folder of real data, or None."""
    value = os.environ.get("ADVGYM_DATA")
    return Path(value) if value else None


def fingerprint(recipe: Any) -> str:
    """Twelve hex digits of the SHA-256 of a recipe as canonical JSON; tensors and arrays in it count by content."""
    text = json.dumps(recipe, sort_keys=True, default=_told)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _told(value: Any) -> str:
    """What JSON cannot hold: arrays by their content (their text leaves out the middle), all else by its text."""
    return digest(value) if isinstance(value, (Tensor, np.ndarray)) else str(value)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers by name."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(tensor_bytes(value.detach().cpu()))
    return found.hexdigest()


def load_or_train(
    name: str,
    build: Callable[[], Module],
    train: Callable[[Module], dict[str, Any]],
    *,
    recipe: dict[str, Any],
    shipped: Path | None = None,
) -> tuple[Module, dict[str, Any]]:
    """The module `build()` makes with its trained weights, and its card.

    Looks at `shipped` (a file of the package, of this recipe), then in the cache, else calls `train(module)`, which
    trains in place and returns what the card says (clean accuracy ...), and keeps the result in the cache. `recipe`
    names everything the weights depend on, data by their content (`content.digest`); another recipe is another
    cache file. Torch's default dtype is part of it where it is not float32.
    """
    if torch.get_default_dtype() != torch.float32:
        recipe = {**recipe, "default_dtype": str(torch.get_default_dtype())}
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and thrown away
        module = build().eval()
    cached = cache_dir() / "victims" / f"{name}-{fingerprint(recipe)}.safetensors"
    for path in (shipped, cached):
        if path is not None and path.is_file() and name not in _forced and _same(path, recipe):
            card = load_weights(path, module)
            return module.eval().requires_grad_(False), card
    log.warning("training the victim %r (kept in %s)", name, cached)
    started = time.perf_counter()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(recipe.get("seed", 0)))
        module = build()
        with torch.enable_grad():  # whoever asks may be under no_grad
            card = train(module)
    _forced.discard(name)
    card = {"name": name, "recipe": recipe, "train_seconds": round(time.perf_counter() - started, 1), **card}
    save_weights(cached, module, card)
    log.warning("trained %r in %.0f s: %s", name, card["train_seconds"], _figures(card))
    return module.eval().requires_grad_(False), card


def _same(path: Path, recipe: dict[str, Any]) -> bool:
    """Whether a file's weights come from this recipe; one that cannot be read is for `load_weights` to refuse."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            card = json.loads((file.metadata() or {}).get("card", "{}"))
        return fingerprint(card["recipe"]) == fingerprint(recipe)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return True


def _figures(card: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" for k, v in card.items() if isinstance(v, float) and k != "train_seconds")


def save_weights(path: Path, module: nn.Module, card: dict[str, Any]) -> None:
    """Write weights and card in one atomic step."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(state, str(part), metadata={"card": json.dumps(card, default=_told)})
    part.chmod(0o644)
    part.replace(path)


def load_weights(path: Path, module: nn.Module) -> dict[str, Any]:
    """Fill `module` from a safetensors file; returns the card stored with it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            card = json.loads((file.metadata() or {}).get("card", "{}"))
        if not isinstance(card, dict):
            raise ValueError("its card is no table")
        module.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise DataError(f"{path} does not hold the weights of this model: {error}; delete it to train anew") from None
    return card
