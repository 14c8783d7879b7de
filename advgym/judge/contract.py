"""The number of the contract: which rules a figure was made under, and what has changed since.

Result files and entries of boards carry the number; one without it is older than numbers, and means 1.
"""

from __future__ import annotations

import msgspec

CONTRACT = 2
# What each number changed for whoever reads a figure that was made before it; what follows from `step` is DESIGN's.
CHANGES: dict[int, tuple[str, ...]] = {
    2: (
        "an answer of a victim that draws at random is the mean of several keyed draws",
        "a success on such a victim is told, and ends a lane, only after a majority of nine confirming draws",
        "the verdict draws under keys that were never used before",
        "on a board, what lies beyond the constraint widened by the board's factor (2 unless it says more) is charged "
        "and not evaluated",
        "a share of a defense's answers is asked again in a fresh process, in another order, gradients included",
        "the defense track always has a transfer row, from the undefended victim",
        "what is raised while a request is answered is the participant's fault",
        "under transfer the verdict is on what an attack returns, for which one query is kept from the start; nothing "
        "returned is the last proposed",
    ),
}

Number = int | msgspec.UnsetType  # as files hold it


def number(said: Number) -> int:
    """The contract of a file.

    >>> number(msgspec.UNSET), number(2)
    (1, 2)
    """
    return 1 if isinstance(said, msgspec.UnsetType) else said


def since(said: Number) -> list[str]:
    """What changed after a file was made, oldest first; nothing for one of today, or of a later version."""
    return [text for made, texts in sorted(CHANGES.items()) if made > number(said) for text in texts]


def notes(said: Number, wrong: bool = False) -> list[str]:
    """What a reader of an older (or newer) file is told beside a check of it, one sentence a line; [] for today's.

    Args:
        wrong: whether the check disagreed with the file.
    """
    made = number(said)
    if made == CONTRACT:
        return []
    if made > CONTRACT:
        return [f"made under contract {made}, and this version of advgym knows {CONTRACT}: check it with a newer one"]
    head = f"made under contract {made}; this version follows {CONTRACT}. These rules changed since:"
    told = [head, *(f"- {text}" for text in since(said))]
    return [*told, "what disagrees may come of these rules, and not of the file"] if wrong else told
