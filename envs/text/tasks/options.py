"""Options of text tasks; each is read where it is used, and a row gives those that it lets be changed."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor

from advgym.errors import AdvgymError
from advgym.lib.options import Options

BUDGET = "a whole number (a count) or a share below 1 of those of a text; 0 for none"
Sure = Annotated[Any, Meta(description='a table of opposites, "auto" (WordNet where it is there), true or false')]
Stop = Annotated[Any, Meta(description="words that stay: true (function words), false, a list, or a file of them")]
Splitter = Annotated[Any, Meta(description="how a text comes apart into words: a name, or a callable")]
Choices = Annotated[int, Meta(ge=1, description="at one site, at most")]
Edits = Annotated[int, Meta(ge=0, description="most words that are edited; 0 leaves it to share")]
Share = Annotated[float, Meta(ge=0, le=1, description="most of them as a fraction of the words; 0 leaves it to edits")]
Slots = Annotated[int, Meta(ge=0, description="words that an agent may append to the table")]
Keywords = Annotated[int, Meta(ge=1, le=3, description='how many must appear, goal "keyword"')]
Points = Annotated[float, Meta(ge=0, le=100, description="BLEU in points, 0 to 100")]


class Limited(Options, kw_only=True):
    """How many words are edited: the lesser of both limits, at least one."""

    edits: Edits = 0
    share: Share = 0.0
    slots: Slots = 0


class Headline(Limited, kw_only=True):
    """Of headlines."""

    keywords: Keywords = 1


class Own(Options, kw_only=True):
    """How texts are read, and what is a choice there."""

    splitter: Splitter = "blanks"
    attacked: Annotated[int, Meta(description="which text of a pair is edited, 1 or 2")] = 2
    candidates: Annotated[Any, Meta(description="where substitutes come from: docs/text-candidates.md")] = "auto"
    choices: Choices = 1
    stopwords: Stop = False
    antonyms: Sure = False
    pos: Annotated[bool, Meta(description="a substitute shares a part of speech with the word, by WordNet")] = False
    edit_distance: Annotated[int, Meta(ge=0, description="most characters between them; 0: any")] = 0
    similarity: Annotated[str, Meta(description="the name of a sentence encoder that compares whole texts")] = ""
    similarity_min: Annotated[float, Meta(ge=-1, le=1, description="the least cosine")] = 0.8
    perplexity: Annotated[str, Meta(description="the name of a causal language model that reads whole texts")] = ""
    perplexity_max: Annotated[float, Meta(ge=0, description="the most, as a multiple of the clean text's")] = 2.0


class Swaps(Own, kw_only=True):
    """Of word swaps."""

    edits: Edits = 0
    share: Share = 0.0
    slots: Slots = 0


class Insertions(Own, kw_only=True):
    """Of words swapped, deleted, put in, or two made one."""

    edits: Edits = 0
    share: Share = 0.0
    insertions: Annotated[Any, Meta(description='what is put in: "fillers", a list of words, or "masked-lm:NAME"')]
    operations: Annotated[Any, Meta(description="a list of swap, delete, insert and merge")]


class Reduced(Own, kw_only=True):
    """Of reduction."""

    left: Annotated[float, Meta(ge=0, le=1, description="the share of the words that may remain")]


class Written(Swaps, kw_only=True):
    """Of victims that write."""

    keywords: Keywords = 1
    phrase: Annotated[int, Meta(ge=1, description="words of a target phrase")] = 1
    bleu: Points
    least_bleu: Points = 0.0
    words: Annotated[str, Meta(description="words that targets can be named with, besides those of clean outputs")] = ""


class Budgets(Options, kw_only=True):
    """Of sentences and words at once."""

    sentences: Annotated[Any, Meta(description=f"most that are paraphrased, {BUDGET}")]
    words: Annotated[Any, Meta(description=f"most that are swapped, {BUDGET}")]


class Paraphrased(Own, kw_only=True):
    """As `Budgets`, of texts that are no generated ones."""

    sentences: Annotated[Any, Meta(description=f"most that are paraphrased, {BUDGET}")]
    words: Annotated[Any, Meta(description=f"most that are swapped, {BUDGET}")]
    paraphrases: Annotated[Any, Meta(description='"rules", "synth", a table, a file of one, or a model by name')]
    wordings: Annotated[int, Meta(ge=1, description="paraphrases of a sentence, at most")]


class Trigger(Options, kw_only=True):
    """Of triggers."""

    words: Annotated[int, Meta(ge=1, description="places of the trigger")]
    texts: Annotated[int, Meta(ge=1, description="M, how many texts one trigger is for: a query for each")]
    choices: Annotated[int, Meta(ge=1, description="the commonest words of the training split that a place may hold")]
    splitter: Splitter = "blanks"
    candidates: Annotated[Any, Meta(description='"common", a list of words, or a file with one a line')] = "common"


def word_limit(options: Limited | Swaps | Insertions, words: Tensor) -> Tensor:
    """Most swaps of texts of int64 (n,) words: the lesser of `edits` and floor(`share` * words), at least 1."""
    edits, share = options.edits, options.share
    if not edits and not share:
        raise AdvgymError("edits=0 and share=0 leave no limit, so that every text is reached: give one of the two")
    limit = words.clone()
    if share:
        # 1e-9: 0.1 * 30 words is 3, not 2.
        limit = torch.minimum(limit, torch.floor(share * words.double() + 1e-9).long())
    if edits:
        limit = limit.clamp_max(edits)
    return limit.clamp_min(1)
