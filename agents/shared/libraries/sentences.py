"""Between the strings of a foreign library and the edits of a table of words."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.errors import AdvgymError

UNKNOWN = "[UNK]"


class Sentences:
    """The clean sentences of every lane, and the edits that make a text of them.

    Args:
        env: of a task whose sites are words.
        words: int64 (lanes, W) of an observation.
    """

    def __init__(self, env, words: Tensor) -> None:
        table, vocabulary = env.table, env.context.get("vocabulary")
        payload = table.payload
        if vocabulary is None or payload is None or payload.dim() != 3 or payload.shape[1] != words.shape[1]:
            raise AdvgymError("this agent plays word swaps: tasks whose sites are the words of a text")
        self._vocabulary, self._payload, self._probes = vocabulary, payload.cpu(), table.probes
        self._mask = table.mask().cpu()
        self._slots = [[(s, vocabulary[w]) for s, w in enumerate(row) if w >= 0] for row in words.tolist()]
        self._choices: dict[tuple[int, int], dict[str, int]] = {}

    def text(self, lane: int) -> str:
        """The clean text, words joined by one space."""
        return " ".join(word for _, word in self._slots[lane])

    def site(self, lane: int, position: int) -> int:
        """The site of the word at a position of the text."""
        return self._slots[lane][position][0]

    def swaps(self, lane: int, site: int) -> dict[str, int]:
        """Substitutes at a site, and their choices."""
        key = (lane, site)
        if key not in self._choices:
            here = self._mask[lane, site].nonzero().squeeze(1).tolist()
            words = self._payload[lane, site].tolist()
            self._choices[key] = {self._vocabulary[words[c]]: c for c in here if words[c] >= 0}
        return self._choices[key]

    def edits(self, lane: int, text: str) -> list[tuple[int, int]] | None:
        """The edits that turn the clean text into this one; None where the table has none."""
        slots, words = self._slots[lane], text.split()
        if len(words) == len(slots):
            return self._same_length(lane, slots, words)
        if len(words) == len(slots) - 1 and "deleted" in self._probes:  # an importance probe
            first = next((i for i, word in enumerate(words) if word != slots[i][1]), len(words))
            rest = self._same_length(lane, slots[:first] + slots[first + 1 :], words)
            return None if rest is None else [*rest, (slots[first][0], self._probes["deleted"])]
        return None

    def _same_length(self, lane: int, slots: list[tuple[int, str]], words: list[str]) -> list[tuple[int, int]] | None:
        out = []
        for (site, old), new in zip(slots, words, strict=True):
            if old == new:
                continue
            choice = self._probes.get("unknown") if new == UNKNOWN else self.swaps(lane, site).get(new)
            if choice is None:
                return None
            out.append((site, choice))
        return out

    def proposals(self, env, asked: dict[int, list[list[tuple[int, int]]]]) -> Tensor:
        """Sets of edits per lane as one array (lanes, P, E, 2)."""
        out = env.threat.null().cpu().unsqueeze(1).repeat(1, env.proposals, 1, 1)
        for lane, sets in asked.items():
            for p, edits in enumerate(sets):
                if edits:
                    out[lane, p, : len(edits)] = torch.tensor(edits)
        return out.to(env.device)
