"""Normalisation of look-alike and invisible characters (against the attacks of Boucher et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.wrapping import before
from advgym.envs.text.candidates.glyphs import plain


@register_defense("normalise", domains=("text",), kinds=("edits",))
def defend(victim: Victim, task) -> Victim:
    """The victim reads every word in the plain characters that it looks like; free of cost on plain text.

    A word that looks like another of the vocabulary becomes that one, one that shows nothing goes, and any other is
    renamed in place, so that gradients and rankings over the vocabulary stay what they are. Made for Latin script.
    """
    kept: dict[str, tuple[torch.Tensor, Any] | None] = {}

    def normalise(x: Any) -> Any:
        if isinstance(x, list):
            return [plain(string) for string in x]
        if not hasattr(x, "replace") or not hasattr(x, "vocabulary"):
            raise AdvgymError(f"normalise reads words or strings, and {task.name} gives {type(x).__name__}")
        vocabulary = x.vocabulary
        if vocabulary.digest not in kept:
            if len(kept) > 8:  # lists of strings bring a vocabulary each
                kept.clear()
            kept[vocabulary.digest] = merged(vocabulary)
        found = kept[vocabulary.digest]
        if found is None:
            return x
        y = x.replace(found[0].to(x.device))
        y.vocabulary = found[1]
        return y

    return before(victim, normalise, "normalise")


def merged(vocabulary: Any) -> tuple[torch.Tensor, Any] | None:
    """(representative of every word, int64 (V,), -1 for none; the vocabulary with plain words), None: all are plain."""
    words = list(vocabulary.words)
    looks = ["".join(plain(word).split()) for word in words]
    if looks == words:
        return None
    index = dict(vocabulary.index)
    for i, look in enumerate(looks):
        index.setdefault(look, i)
    table = [index[look] if look else -1 for look in looks]
    names = [look if table[i] == i else words[i] for i, look in enumerate(looks)]
    return torch.tensor(table, dtype=torch.int64), type(vocabulary)(names)
