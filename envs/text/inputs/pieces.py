"""Sub-tokens of words: texts of word ids as rows of a tokenizer's ids, or as mixed embeddings, without strings.

Word by word is the same as the whole text for every tokenizer that never joins words across a space (WordPiece,
byte-level BPE, SentencePiece with its default split); `Pieces.faithful` compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.spacing import PAIR
from advgym.envs.text.inputs.text_pairs import split_pair
from advgym.envs.text.inputs.vocabulary import UNKNOWN, Vocabulary

ANCHOR = "a"  # stands before a word whose sub-tokens after a space are asked for
SOLID = "。"  # the same for words with nothing before them: no tokenizer joins it with what follows
CHECKED = 64  # texts that `faithful` compares
FORMS = 96  # different gaps before words that are tokenised ahead
ALWAYS = ("", " ")  # before a first word, and before one that is put in


@dataclass(frozen=True)
class Template:
    """The special tokens around one text, or around two."""

    prefix: list[int]
    suffix: list[int]
    middle: list[int]  # between two texts; empty where the tokenizer takes no pairs
    types: tuple[int, int, int] = (0, 0, 0)  # token types of the first text, the middle, and the second text

    @property
    def specials(self) -> int:
        """Tokens that are no text, in a pair."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text without special ones."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def find_template(tokenizer: Any) -> Template | None:
    """What the tokenizer puts around texts, by asking it; None where its output does not hold the text's own tokens."""
    word = plain_ids(tokenizer, ANCHOR)
    one = list(tokenizer(ANCHOR)["input_ids"])
    at = _find(word, one, 0)
    if at < 0 or not word:
        return None
    single = Template(one[:at], one[at + len(word) :], [])
    try:
        asked = tokenizer(ANCHOR, ANCHOR)
    except (TypeError, ValueError, NotImplementedError):
        return single
    two, kinds = list(asked["input_ids"]), asked.get("token_type_ids")
    end = at + len(word)
    second = _find(word, two, end)
    if two[:at] != single.prefix or second < 0 or two[second + len(word) :] != single.suffix:
        return single
    types = (0, 0, 0) if kinds is None else (kinds[at], kinds[end] if second > end else kinds[at], kinds[second])
    return Template(single.prefix, single.suffix, two[end:second], types)


def _find(part: list[int], whole: list[int], start: int) -> int:
    """Where `part` stands in `whole` from `start` on; -1 if nowhere."""
    return next((i for i in range(start, len(whole) - len(part) + 1) if whole[i : i + len(part)] == part), -1)


def few(gaps: Iterable[str]) -> bool:
    """Whether so many different gaps are tokenised ahead."""
    return len({*ALWAYS, *gaps}) <= FORMS


class Pieces:
    """The sub-tokens of every word of a vocabulary, in one form for each way that it may stand in a text.

    A form is told by what stands before the word, and by whether a text begins there. A word that holds PAIR is the
    other text of a pair, with the special tokens between the two; the word after it begins a text again.

    Args:
        tokenizer: of transformers.
        template: its special tokens.
        vocabulary: the task's words.
        longest: tokens that the model reads, special ones included.
        device: of the tables.
        padding: id that stands after the shorter texts of a batch.
    """

    def __init__(
        self, tokenizer: Any, template: Template, vocabulary: Vocabulary, longest: int, device: torch.device,
        padding: int = 0,
    ) -> None:  # fmt: skip
        self.tokenizer, self.template, self.longest, self.vocabulary = tokenizer, template, longest, vocabulary
        self.padding, self.device = padding, device
        self.cut: set[str] = set()  # other texts that were too long
        self.paired = any(PAIR in word for word in vocabulary.words)
        self._plain = [w for w in vocabulary.words if PAIR not in w]
        # The last entry answers for -1, no word.
        self.pairs = torch.tensor([*(PAIR in w for w in vocabulary.words), False], device=device)
        self.opens = torch.tensor([*(w.endswith(PAIR) for w in vocabulary.words), False], device=device)
        self.forget()

    def forget(self) -> None:
        """Keep no forms but those that every text has."""
        self._rows: list[list[int]] = []
        self._kinds: list[list[int]] = []
        self._blocks: dict[tuple[str, str], int] = {}  # where the words of a form, or a lone gap, begin in the tables
        for key in (("after", " "), ("begin", "")):
            self._block(key)

    def _block(self, key: tuple[str, str]) -> int:
        """Where the entries of a form begin: ("after" or "begin", gap) of all words, or ("gap", gap) alone."""
        if key in self._blocks:
            return self._blocks[key]
        self._blocks[key] = start = len(self._rows)
        if key[0] == "gap":
            self._add(self._between(key[1]))
        else:
            form = self._form(*key)
            for word in self.vocabulary.words:
                if PAIR in word:
                    self._add(*self._other(word))
                elif word == UNKNOWN and self.tokenizer.unk_token_id is not None:
                    self._add([int(self.tokenizer.unk_token_id)])
                else:
                    self._add(form[word])
        rows = [*self._rows, []]  # no word
        self.many = torch.tensor([len(r) for r in rows], device=self.device)
        self.start = self.many.cumsum(0) - self.many
        self.flat = torch.tensor([i for r in rows for i in r] or [0], device=self.device)
        self.kinds = torch.tensor([i for r in self._kinds for i in r] or [0], device=self.device)
        return start

    def _add(self, ids: list[int], kinds: list[int] | None = None) -> None:
        self._rows.append(ids)
        self._kinds.append([self.template.types[0]] * len(ids) if kinds is None else kinds)

    def _form(self, how: str, gap: str) -> dict[str, list[int]]:
        if not self._plain:
            return {}
        if how == "begin" or not getattr(self.tokenizer, "is_fast", True):  # slow ones tell no offsets
            lead = gap if how == "begin" else ""
            ids = self.tokenizer([lead + w for w in self._plain], add_special_tokens=False)["input_ids"]
            return dict(zip(self._plain, map(list, ids), strict=True))
        anchor = ANCHOR if gap else SOLID
        found = self.tokenizer(
            [anchor + gap + w for w in self._plain], add_special_tokens=False, return_offsets_mapping=True
        )  # fmt: skip
        return {
            word: [i for i, (at, _) in zip(ids, spans, strict=True) if at >= len(anchor)]
            for word, ids, spans in zip(self._plain, found["input_ids"], found["offset_mapping"], strict=True)
        }

    def _between(self, gap: str) -> list[int]:
        """Tokens of what stands after a text."""
        if not gap or not getattr(self.tokenizer, "is_fast", True):
            return []
        found = self.tokenizer(ANCHOR + gap, add_special_tokens=False, return_offsets_mapping=True)
        return [i for i, (at, _) in zip(found["input_ids"], found["offset_mapping"], strict=True) if at >= len(ANCHOR)]

    def _other(self, word: str) -> tuple[list[int], list[int]]:
        """Tokens and token types of the other text of a pair; at most three quarters of what the model reads."""
        first, middle, second = self.template.types
        first_text, second_text = split_pair(word)
        most = 3 * (self.longest - self.template.specials) // 4
        between = [middle] * len(self.template.middle)
        if word.endswith(PAIR):
            ids = self._cut(plain_ids(self.tokenizer, first_text), most, first_text)
            return ids + self.template.middle, [first] * len(ids) + between
        ids = self._cut(plain_ids(self.tokenizer, second_text), most, second_text)
        return self.template.middle + ids, between + [second] * len(ids)

    def _cut(self, ids: list[int], most: int, text: str) -> list[int]:
        if len(ids) > most:
            self.cut.add(text)
        return ids[:most]

    # -- rows --------------------------------------------------------------------------------------------------
    def _standing(self, x: TextInput, before: Tensor, begins: Tensor) -> tuple[Tensor, Tensor | None]:
        """(where the entries of each slot's form begin, int64 (n, W); those of what stands after the text, (n,))."""
        if x.gaps is None:
            after, begin = self._block(("after", " ")), self._block(("begin", ""))
            return torch.where(begins, begin, after), None
        ids, texts = x.gaps
        lead = ids.gather(1, (before + 1).clamp_min(0))
        code = torch.where(begins, lead + len(texts), ids[:, :-1])
        used = code[x.present()].unique().tolist()
        at = torch.full((2 * len(texts),), -1, device=code.device)
        for c in used:
            at[c] = self._block(("begin" if c >= len(texts) else "after", texts[c % len(texts)]))
        tail = torch.full((len(texts),), -1, device=code.device)
        for c in ids[:, -1].unique().tolist():
            tail[c] = self._block(("gap", texts[c]))
        return at[code], tail[ids[:, -1]]

    def known(self, x: TextInput) -> bool:
        """Whether the texts' gaps, with those met before, are few enough for forms of their own."""
        if x.gaps is None:
            return True
        return few({x.gaps[1][i] for i in x.gaps[0].unique().tolist()} | {gap for _, gap in self._blocks})

    def forms(self, x: TextInput) -> tuple[Tensor, Tensor, Tensor]:
        """(form of each part int64 (n, W', K), its weight float (n, W', K), whether a slot is of the second text).

        Part 0 is the slot's own word, the others what is mixed in; a form indexes `many` and `start`. Texts with gaps
        of their own have one slot more, for what stands after them.
        """
        ids = x.ids.unsqueeze(2)
        weight = torch.ones_like(ids, dtype=torch.float32)
        if x.swap is not None and x.weight is not None:
            ids = torch.cat([ids, x.swap], 2)
            weight = torch.cat([1 - x.weight.sum(2, keepdim=True), x.weight], 2)
        here = x.present()
        slot = torch.arange(here.shape[1], device=here.device).expand_as(here)
        last = torch.where(here, slot, -1).cummax(1).values if here.shape[1] else slot
        before = torch.cat([last.new_full((len(last), 1), -1), last[:, :-1]], 1)[:, : here.shape[1]]
        opened = self.opens[torch.where(before >= 0, x.ids.gather(1, before.clamp_min(0)), -1)]
        begins = (before < 0) | opened
        stands, tail = self._standing(x, before, begins)
        form = torch.where(ids < 0, -1, ids + stands.unsqueeze(2))
        second = (self.opens[x.ids] & here).long().cumsum(1) > 0
        second = second & ~self.opens[x.ids]
        if tail is None:
            return form, weight, second
        more = torch.full_like(form[:, :1], -1)
        more[:, 0, 0] = tail
        alone = torch.zeros_like(weight[:, :1])
        alone[:, 0, 0] = 1.0
        beyond = (self.opens[x.ids] & here).any(1, keepdim=True)
        return torch.cat([form, more], 1), torch.cat([weight, alone], 1), torch.cat([second, beyond], 1)

    def lengths(self, x: TextInput) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Tokens of each text, int64 (n,), before truncation; and what `rows` reads: forms and sub-tokens per slot."""
        form, weight, second = self.forms(x)
        many = torch.where(weight.detach() > 0, self.many[form], 0).amax(2)
        return many.sum(1), (form, weight, second, many, self.pairs[x.ids].any(1))

    def rows(
        self, made: tuple[Tensor, ...], table: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """(ids int64 (n, L), mixed embeddings (n, L, D) or None, mask int64 (n, L), token types int64 (n, L)).

        Position j of a slot holds the j-th sub-tokens of its parts, each times its part's weight; it is there while a
        part of positive weight has a j-th sub-token. So weights of 0 and 1 give exactly the plain texts. Of a mixture
        the id is that of the part of most weight.

        Args:
            made: of `lengths`, for the rows wanted.
            table: embeddings (ids, D); None for ids, of texts without mixtures.
        """
        form, weight, second, many, paired = made
        device, head, n = form.device, len(self.template.prefix), len(form)
        room = self.longest - head - len(self.template.suffix)
        size = many.flatten()
        owner = torch.arange(size.numel(), device=device).repeat_interleave(size)
        nth = torch.arange(len(owner), device=device) - (size.cumsum(0) - size)[owner]
        row = owner // many.shape[1] if many.shape[1] else owner
        column = (many.cumsum(1) - many).flatten()[owner] + nth
        kept = column < room
        owner, nth, row, column = owner[kept], nth[kept], row[kept], column[kept]
        length = many.sum(1).clamp_max(room)
        width = head + (int(length.max()) if n else 0) + len(self.template.suffix)
        place = torch.arange(width, device=device)
        mask = (place < (length + head + len(self.template.suffix)).unsqueeze(1)).long()

        ids = torch.full((n, width), self.padding, device=device)
        ids[:, :head] = torch.tensor(self.template.prefix, dtype=torch.int64, device=device)
        for i, token in enumerate(self.template.suffix):
            ids[torch.arange(n, device=device), head + length + i] = token
        part = form.flatten(0, 1)[owner]  # (total, K)
        inside = nth.unsqueeze(1) < self.many[part]
        token_at = torch.where(inside, self.start[part] + nth.unsqueeze(1), 0)
        parts = torch.where(inside, weight.detach().flatten(0, 1)[owner], -torch.inf)
        main = parts.argmax(1) if parts.shape[1] > 1 else torch.zeros_like(row)
        shown = token_at[torch.arange(len(row), device=device), main]
        ids[row, head + column] = self.flat[shown]
        kinds = torch.full_like(ids, self.template.types[0])
        kinds[row, head + column] = torch.where(second.flatten()[owner], self.template.types[2], self.kinds[shown])
        tail = (place >= (head + length).unsqueeze(1)) & paired.unsqueeze(1)
        kinds = torch.where(tail, self.template.types[2], kinds) * mask
        if table is None:
            return ids, None, mask, kinds
        mixed = torch.where(inside, weight.flatten(0, 1)[owner], 0.0).unsqueeze(1) @ table[self.flat[token_at]]
        hidden = table[ids].index_put((row, head + column), mixed.squeeze(1))
        return ids, hidden, mask, kinds

    def faithful(self, x: TextInput) -> bool:
        """Whether the first plain texts, word by word, are what the tokenizer makes of them as a whole."""
        some = x.take(torch.arange(min(CHECKED, len(x)), device=x.device))
        ids, _, mask, _ = self.rows(self.lengths(some)[1])
        for text, row, here in zip(some.strings(), ids.tolist(), mask.sum(1).tolist(), strict=True):
            parts = split_pair(text) if PAIR in text else (text,)
            want = self.tokenizer(*([p] for p in parts))["input_ids"][0]  # lists: an empty second text is one, too
            if len(want) <= self.longest and self.cut.isdisjoint(parts) and list(want) != row[:here]:
                return False
        return True
