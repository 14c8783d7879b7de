"""Other people's libraries: the global random states they draw from, and imports that read corpora and download."""

from __future__ import annotations

import contextlib
import importlib
import io
import random
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

from advgym.errors import AdvgymError
from advgym.lib.extras import absent, install, missing
from advgym.lib.weights import cache_dir, data_dir

States = tuple[Any, Any, Any]  # of Python, NumPy and PyTorch


# -- random states -------------------------------------------------------------------------------------------
def seeded(seed: int) -> States:
    """The states that seeding all three would leave."""
    return (
        random.Random(seed).getstate(),
        np.random.RandomState(seed % 2**32).get_state(),
        torch.Generator().manual_seed(seed).get_state(),
    )


def states() -> States:
    """The global states as they are."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def restore(kept: States) -> None:
    """Set the global states."""
    random.setstate(kept[0])
    np.random.set_state(kept[1])
    torch.set_rng_state(kept[2])


@contextlib.contextmanager
def own_states(seed: int) -> Iterator[None]:
    """Global draws from this seed within, and the caller's as they were afterwards."""
    kept = states()
    restore(seeded(seed))
    try:
        yield
    finally:
        restore(kept)


# -- imports -------------------------------------------------------------------------------------------------
def _corpus(name: str, folder: str, words: Iterable[str]) -> str:
    """A folder of NLTK data with a list of words: under $ADVGYM_DATA, else one made of `words` in the cache."""
    root = data_dir()
    if root is not None and (root / folder / "corpora" / name).is_dir():
        return str(root / folder)
    file = cache_dir() / "nltk_data" / "corpora" / name / "english"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(sorted(words)) + "\n", encoding="utf-8")
    return str(cache_dir() / "nltk_data")


@cache
def quiet_import(name: str, corpus: str, folder: str, words: tuple[str, ...]) -> Any:
    """Import a library that reads a corpus of NLTK's and tries downloads when it is imported, offline and in silence.

    Args:
        name: of the library, which is said where it is missing.
        corpus: the list that it reads, "stopwords".
        folder: of NLTK data under $ADVGYM_DATA.
        words: what stands in where the corpus is nowhere.

    Raises:
        AdvgymError: where it is not installed, or does not import beside the other versions.
    """
    try:
        import nltk
    except ImportError:
        raise missing("nltk", name) from None  # type: ignore[misc]
    try:
        nltk.data.find(f"corpora/{corpus}")
    except LookupError:
        nltk.data.path.append(_corpus(corpus, folder, words))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return importlib.import_module(name)
    except ImportError as error:
        raise absent(error, name) or AdvgymError(
            f"{name} does not import here: {error}. {install('peers')} has what it needs."
        ) from None
