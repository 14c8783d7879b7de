"""Merging synonyms into one representative (synonym encoding: Wang, Jin and He 2021)."""

from __future__ import annotations

import numpy as np
import torch

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.wrapping import before


@register_defense("merge-synonyms", domains=("text",), kinds=("edits",))
def defend(victim: Victim, task) -> Victim:
    """Every word becomes its cluster's representative before the victim reads it (Wang et al. 2021)."""
    synonyms = task.context.get("synonyms")
    if synonyms is None:
        raise AdvgymError(f"{task.name} offers no table of synonyms in its context, so there is nothing to merge")
    table = torch.from_numpy(clusters(np.asarray(synonyms)))

    def merge(x):
        return x.replace(table.to(x.device))

    return before(victim, merge, "merge-synonyms")


def clusters(synonyms: np.ndarray) -> np.ndarray:
    """The representative of every word, int64 (V,), from a table of synonyms (V, K) padded with -1.

    In the table's order, a word that has none yet represents itself and its unclaimed synonyms.

    >>> clusters(np.array([[1, 2], [0, -1], [3, -1], [2, -1]])).tolist()
    [0, 0, 0, 3]
    """
    of = np.full(len(synonyms), -1, np.int64)
    for word, near in enumerate(synonyms):
        if of[word] < 0:
            of[word] = word
            free = near[(near >= 0)]
            of[free[of[free] < 0]] = word
    return of
