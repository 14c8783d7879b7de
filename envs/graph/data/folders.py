"""Where the files of a named dataset lie."""

from __future__ import annotations

from pathlib import Path

from advgym.errors import DataError
from advgym.lib.weights import data_dir


def data_folder(name: str, *parts: str) -> Path:
    """The path of a dataset's files below $ADVGYM_DATA.

    Raises:
        DataError: where that is not set.
    """
    root = data_dir()
    if root is None:
        raise DataError(
            f"dataset {name!r} needs its files: set ADVGYM_DATA to the folder that holds {'/'.join(parts)}, or pass "
            "dataset= a path. Tasks on 'karate' and 'sbm' need no files"
        )
    return root.joinpath(*parts)
