"""Candidates that a masked language model writes in context (BAE: Garg & Ramakrishnan, 2020; BERT-Attack; CLARE)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from advgym.envs.text.candidates.source import Source
from advgym.envs.text.inputs.dressing import dress
from advgym.envs.text.models.hub_parts import load_part
from advgym.errors import DataError
from advgym.lib.weights import weights_hash

TOP = 48  # words per place, as BERT-Attack; a task takes the first `choices` of them
WINDOW = 64  # words on each side that the model reads
CHUNK = 16  # sentences per forward
MODEL = frozenset({"language-model"})


def masked(name: str) -> Source:
    """The likeliest words where the word is masked (BAE-R); for gaps and pairs of words a mask stands there (CLARE).

    A word of several pieces is one mask; pieces that only continue a word are left out. The model is a name of the hub
    or a local folder.
    """
    model = open_model(name)
    return Source(
        f"masked-lm:{name}", texts=model.replacements, alphabet=lambda: model.alphabet, gaps=model.gaps,
        merges=model.merges, key=f"masked-lm 1 {TOP} {WINDOW} {model.digest}", offers=MODEL,
    )  # fmt: skip


def unmasked(name: str) -> Source:
    """The likeliest words where the model sees the word itself (BERT-Attack: Li et al., 2020); one forward a text."""
    model = open_model(name)
    return Source(
        f"unmasked-lm:{name}", texts=model.guesses, alphabet=lambda: model.alphabet,
        key=f"unmasked-lm 1 {TOP} {WINDOW} {model.digest}", offers=MODEL,
    )  # fmt: skip


class MaskedModel:
    """A masked language model that fills places in sentences with whole words."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tokenizer, self.model = load_part(name, "AutoModelForMaskedLM", "candidates='masked-lm:NAME'")
        if self.tokenizer.mask_token_id is None:
            raise DataError(f"{name} has no mask token, so it is no masked language model")
        longest = int(getattr(self.model.config, "max_position_embeddings", 512)) - 2
        self.longest = min(longest, int(self.tokenizer.model_max_length))

    @cached_property
    def digest(self) -> str:
        """Of the weights and the words."""
        return weights_hash(self.model)[:16] + str(len(self.tokenizer))

    @cached_property
    def whole(self) -> tuple[Tensor, list[str]]:
        """(ids int64 (n,) of the tokens that are whole words of letters, those words)."""
        every = sorted(set(self.tokenizer.get_vocab().values()) - set(self.tokenizer.all_special_ids))
        words = [self.tokenizer.decode([i]).strip() for i in every]
        lead = len(self._plain(["a"])[0])
        told = self._plain([f"a {word}" for word in words])
        # A piece that continues a word does not come back when it is written as a word.
        first: dict[str, int] = {}
        for i, word, ids in zip(every, words, told, strict=True):
            if word.isalpha() and ids[lead:] == [i]:
                first.setdefault(word, i)
        return torch.tensor(list(first.values()), dtype=torch.int64), list(first)

    @property
    def alphabet(self) -> list[str]:
        """All words that it may write."""
        return self.whole[1]

    def _plain(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return found

    def replacements(self, texts: Sequence[list[str]]) -> list[list[list[str]]]:
        """Per sentence and word: what may stand there instead."""
        return self._fill(texts, lambda t: [(t[:i], t[i], t[i + 1 :]) for i in range(len(t))])

    def gaps(self, texts: Sequence[list[str]]) -> list[list[list[str]]]:
        """Per sentence and gap (one more than words): what may be put in."""
        return self._fill(texts, lambda t: [(t[:i], "", t[i:]) for i in range(len(t) + 1)])

    def merges(self, texts: Sequence[list[str]]) -> list[list[list[str]]]:
        """Per sentence and pair of neighbours: what may stand for both."""
        return self._fill(texts, lambda t: [(t[:i], "", t[i + 2 :]) for i in range(len(t) - 1)])

    def _fill(self, texts: Sequence[list[str]], places: Any) -> list[list[list[str]]]:
        asked: list[tuple[int, int, str]] = []  # sentence, place, the word that stands there
        strings: list[str] = []
        out: list[list[list[str]]] = []
        mask = self.tokenizer.mask_token
        for s, text in enumerate(texts):
            found = places(text)
            out.append([[] for _ in found])
            for p, (left, word, right) in enumerate(found):
                before, core, after = dress(word)
                if word and not any(c.isalnum() for c in core):
                    continue  # punctuation stays
                asked.append((s, p, word))
                strings.append(" ".join([*left[-WINDOW:], before + mask + after, *right[:WINDOW]]))
        order = sorted(range(len(strings)), key=lambda i: len(strings[i]))
        for start in range(0, len(order), CHUNK):
            part = order[start : start + CHUNK]
            for i, row in zip(part, self._likeliest([strings[i] for i in part]), strict=True):
                s, p, word = asked[i]
                out[s][p] = [w for w in row if w.lower() != dress(word)[1].lower()]
        return out

    @torch.no_grad()
    def _likeliest(self, strings: list[str]) -> list[list[str]]:
        """The TOP likeliest words at the mask of each string; none where it was cut off."""
        x = self.tokenizer(strings, return_tensors="pt", padding=True, truncation=True, max_length=self.longest)
        here = x["input_ids"] == self.tokenizer.mask_token_id
        logits = self.model(**x.to(self.model.device)).logits
        at = here.to(torch.int8).argmax(1)
        return self._words(logits[torch.arange(len(at)), at], here.any(1))

    def _words(self, logits: Tensor, some: Tensor) -> list[list[str]]:
        ids, words = self.whole
        best = logits[:, ids.to(logits.device)].topk(min(TOP + 1, len(ids)), 1).indices.tolist()
        return [[words[i] for i in row] if there else [] for row, there in zip(best, some.tolist(), strict=True)]

    @torch.no_grad()
    def guesses(self, texts: Sequence[list[str]]) -> list[list[list[str]]]:
        """Per sentence and word, from one forward over the plain sentence: the first piece of a word speaks for it."""
        out: list[list[list[str]]] = [[[] for _ in text] for text in texts]
        for s, text in enumerate(texts):
            string = " ".join(text)
            if not text:
                continue
            x = self.tokenizer(
                string, return_tensors="pt", truncation=True, max_length=self.longest, return_offsets_mapping=True
            )
            spans = x.pop("offset_mapping")[0].tolist()
            logits = self.model(**x.to(self.model.device)).logits[0]
            starts = [0]
            for word in text:
                starts.append(starts[-1] + len(word) + 1)
            piece: dict[int, int] = {}
            for t, (a, b) in enumerate(spans):
                if b > a:
                    piece.setdefault(a + (string[a] == " "), t)
            for i, word in enumerate(text):
                before, core, _ = dress(word)
                first = piece.get(starts[i] + len(before))
                if first is not None and any(c.isalnum() for c in core):
                    row = self._words(logits[first : first + 1], torch.ones(1, dtype=torch.bool))[0]
                    out[s][i] = [w for w in row if w.lower() != core.lower()]
        return out


@cache
def open_model(name: str) -> MaskedModel:
    """The model of a name or folder, kept for the process."""
    return MaskedModel(name)
