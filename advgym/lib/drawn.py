"""The spelling `NAME#SEED:COUNT`: samples that a seed draws from an embedded dataset, in the split "hidden"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from advgym.errors import DataError

SPLIT = "hidden"
MOST = 100_000  # samples
_SPELLING = re.compile(r"([^#]+)#([0-9]{1,19}):([0-9]{1,6})")


@dataclass(frozen=True)
class Drawn:
    """COUNT samples drawn from a dataset's generator by a seed in [0, 2**63)."""

    name: str
    seed: int
    count: int


def read_drawn(dataset: str) -> Drawn | None:
    """The parts of `NAME#SEED:COUNT`; None for a name or a path without a `#`.

    >>> read_drawn("digits#7:64")
    Drawn(name='digits', seed=7, count=64)
    >>> read_drawn("digits") is None
    True

    Raises:
        DataError: for a `#` that is followed by anything else.
    """
    if "#" not in dataset:
        return None
    found = _SPELLING.fullmatch(dataset)
    seed, count = (int(found[2]), int(found[3])) if found else (-1, 0)
    if found is None or not 0 <= seed < 1 << 63 or not 1 <= count <= MOST:
        raise DataError(
            f"drawn samples are spelled NAME#SEED:COUNT, with a seed below 2**63 and 1 to {MOST} samples, "
            f"not {dataset!r}"
        )
    return Drawn(found[1], seed, count)
