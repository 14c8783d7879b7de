"""Word swaps against victims that write: Multi30k translators, and the caller's own seq2seq model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from advgym.core.kinds.sequences import UNSEEN, SequenceGoal
from advgym.core.task import Spec, Task
from advgym.envs.text.candidates import lexicons
from advgym.envs.text.data import captions, corpora, samples
from advgym.envs.text.inputs.pieces import plain_ids
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.spacing import Spacing
from advgym.envs.text.inputs.vocabulary import Vocabulary, pad_rows
from advgym.envs.text.tasks import swapping
from advgym.envs.text.tasks.given import SPLITS, Given, make_task, space_of
from advgym.envs.text.tasks.options import Written
from advgym.envs.text.victims import hub_seq2seq
from advgym.envs.text.victims.hub import fit_gaps
from advgym.errors import AdvgymError, VictimError
from advgym.lib.options import takes

OFTEN = 3  # other outputs that a keyword or a phrase must stand in to be drawn as a target
LETTERS = 3  # of a keyword at least


# -- targets -------------------------------------------------------------------------------------------------
def often(rows: Iterable[Sequence[int]], least: int = OFTEN) -> Counter[int]:
    """In how many rows each token stands, of those in at least `least`."""
    counts = Counter(token for row in rows for token in set(row))
    return Counter({token: n for token, n in counts.items() if n >= least})


def common_phrases(rows: Sequence[Sequence[int]], size: int, telling: set[int], least: int = OFTEN) -> Tensor:
    """Phrases of `size` tokens that stand in at least `least` rows and begin and end with a telling one, (P, size)."""
    counts = Counter(
        p for row in rows for p in {tuple(row[i : i + size]) for i in range(len(row) - size + 1)}
        if p[0] in telling and p[-1] in telling
    )  # fmt: skip
    found = sorted(p for p, n in counts.items() if n >= least)
    return torch.tensor(found, dtype=torch.int64).reshape(-1, size)


def sequence_goal(
    spec: Spec,
    options: Written,
    words: Sequence[str],
    length: int,
    rows: Sequence[Sequence[int]],
    telling: set[int],
    **more: Any,
) -> SequenceGoal:
    """The goal of a task whose other outputs are `rows` of tokens; targets are drawn from the `telling` ones."""
    size = options.phrase
    if size > length:
        raise AdvgymError(f"phrase is the number of words of a target phrase, at most {length}, not {size}")
    pool = torch.tensor(sorted(t for t in often(rows) if t in telling), dtype=torch.int64)
    phrases = common_phrases(rows, size, telling) if spec.threat.goal == "phrase" else None
    return SequenceGoal(
        words, length, spec.threat.goal, options.keywords, pool=pool, phrases=phrases, bound=options.bleu, **more
    )  # fmt: skip


def _make(spec: Spec, options: Written, given: Given, goal: SequenceGoal) -> Task:
    """The word-swap task of `text/wordswap` with a goal on sequences."""
    space = space_of(given, options)
    task = make_task(spec, given, space, swapping.dealer(given, space, options), goal)
    return replace(task, context={**task.context, "output_words": goal.words})


# -- Multi30k ------------------------------------------------------------------------------------------------
def _corpus(found: captions.Captions) -> corpora.Corpus:
    """English words, and as labels the tokens of the German sentences."""
    index = {word: i + 1 for i, word in enumerate(found.words)}
    said = {
        split: [[index.get(w, UNSEEN) for w in t[: captions.LENGTH]] for t in texts]
        for split, texts in found.target.items()
    }
    labels: Any = {split: pad_rows(rows, captions.LENGTH).tolist() for split, rows in said.items()}
    return corpora.Corpus("multi30k", found.source, labels, (), found.digest)


_corpora: dict[str, corpora.Corpus] = {}


@takes(Written)
def multi30k_wordswap(spec: Spec, options: Written) -> Task:
    """Multi30k captions (Elliott et al., 2016), English to German; a choice is a substitute of the English word.

    A translation counts as right from `least_bleu` points of sentence BLEU on; 0 takes all that are not empty.
    """
    if spec.samples is not None:
        raise AdvgymError(f"{spec.name} reads its own samples; text/seq2seq-wordswap takes yours")
    if spec.load_dataset() != "multi30k":
        raise AdvgymError(f"{spec.name} reads multi30k alone, not {spec.load_dataset()!r}")
    found = captions.captions()
    if found.digest not in _corpora:
        _corpora.clear()
        _corpora[found.digest] = _corpus(found)
    corpus = _corpora[found.digest]
    given = Given(corpus, spec.load_victim(), 0, None, corpus.longest, False)
    rows = [[t for t in row if t > 0] for row in corpus.labels["test"]]  # type: ignore[attr-defined]
    telling = {i + 1 for i, w in enumerate(found.words)
               if w.isalpha() and len(w) >= LETTERS and w not in captions.GERMAN_STOPWORDS}  # fmt: skip
    goal = sequence_goal(spec, options, found.words, captions.LENGTH, rows, telling, least=options.least_bleu)
    return _make(spec, options, given, goal)


# -- the caller's own ----------------------------------------------------------------------------------------
@takes(Written)
def seq2seq_wordswap(spec: Spec, options: Written) -> Task:
    """The caller's seq2seq model of transformers and sentences: a list of texts, or a dataset with a text column.

    The victim's own clean outputs are the references; tokens are the model's own. Targets are named by tokens of the
    clean outputs and of the words in the option `words`.
    """
    victim = spec.load_victim()
    if not isinstance(victim.model, hub_seq2seq.Writer):
        raise VictimError(
            "text/seq2seq-wordswap attacks a seq2seq model of transformers: victim='seq2seq:/a/folder', or "
            "advgym.envs.text.victims.hub_seq2seq.load('/a/folder'); text/multi30k-wordswap has victims of its own"
        )
    found = lexicons.own_samples(samples.samples_of(spec, labelled=False), split=options.splitter)
    writer, texts = victim.model, found.texts
    own = Vocabulary(dict.fromkeys(w for text in texts for w in text))
    width, spacing = max(1, max(map(len, texts))), Spacing(found.gaps)
    x = TextInput(pad_rows([own.encode(t) for t in texts], width), own,
                  gaps=(spacing.rows(found.gaps, width), spacing.texts))  # fmt: skip
    said = writer.outputs(x).cpu()
    named = [i for word in options.words.split() for i in plain_ids(writer.tokenizer, word)]
    keep = torch.unique(torch.cat([said[said >= 0], torch.tensor(named, dtype=torch.int64)]))
    keep = keep[~torch.isin(keep, torch.tensor(writer.ends))]
    if not len(keep):
        raise VictimError(f"victim {victim.name!r} writes nothing to any of the samples")
    model = writer.narrowed(keep)
    labels: Any = torch.where(said >= 0, torch.searchsorted(keep, said) + 1, -1).tolist()
    corpus = replace(found.corpus, labels=dict.fromkeys(SPLITS, labels))
    fresh = fit_gaps(victim.like(model), found.gaps)
    rows = [[t for t in row if t > 0] for row in labels]
    telling = {i + 1 for i, word in enumerate(model.words[:-1]) if _begins_a_word(model, word)}
    goal = sequence_goal(spec, options, model.words, model.length, rows, telling, joined=model.joined)
    return _make(spec, options, Given(corpus, fresh, 0, None, width, True), goal)


def _begins_a_word(model: hub_seq2seq.Writer, piece: str) -> bool:
    """Whether a token is the beginning of a word of some letters, and no special token."""
    plain = model.joined([piece])
    return piece not in model.tokenizer.all_special_tokens and plain.isalpha() and len(plain) >= LETTERS
