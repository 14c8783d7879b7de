"""Two tasks of the embedded generator: word swaps in its reviews, and in its news with the headline of a victim."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from advgym.core.goals import Goal
from advgym.core.kinds.sequences import SequenceGoal
from advgym.core.task import Spec, Task
from advgym.envs.text.data import corpora, news
from advgym.envs.text.measures import columns
from advgym.envs.text.tasks import swapping
from advgym.envs.text.tasks.given import Given, check_name, make_task, read_given, space_of
from advgym.envs.text.tasks.options import Headline, Limited, Own, Swaps
from advgym.envs.text.victims import own, recipes
from advgym.lib.options import takes

REVIEW_CHOICES = 6  # substitutes of a word at most


def _task(spec: Spec, options: Limited, given: Given, goal: Goal | None = None) -> Task:
    """Swaps by the grammar's own synonyms."""
    limits = {name: getattr(options, name) for name in ("edits", "share", "slots")}
    swaps = Swaps(candidates="synth", choices=REVIEW_CHOICES, **limits)
    space = space_of(given, swaps)
    return make_task(spec, given, space, swapping.dealer(given, space, swaps), goal)


@takes(Limited)
def synth_wordswap(spec: Spec, options: Limited) -> Task:
    """Generated short reviews; a site is a word, a choice another word of its synset."""
    return _task(spec, options, read_given(spec, Own()))


@cache
def _headlines() -> corpora.Corpus:
    """News, and as labels the tokens of their headlines."""
    corpus, heads = corpora.headlines()
    labels = {split: recipes.head_tokens(part).tolist() for split, part in heads.items()}
    return replace(corpus, labels=labels)


@takes(Headline)
def synth_headline(spec: Spec, options: Headline) -> Task:
    """Generated short news and the headline a victim writes; word swaps in the news."""
    drawn = check_name(spec, "synth-headlines")
    more = None
    if drawn is not None:
        texts, heads = corpora.drawn_headlines(drawn.seed, drawn.count)
        more = texts, recipes.head_tokens(heads).tolist()
    given = Given(_headlines(), own.task_victim(spec), 0, None, news.ARTICLE, False, more)
    goal = SequenceGoal(news.HEAD_WORDS, news.HEADLINE, spec.threat.goal, options.keywords)
    return replace(_task(spec, options, given, goal), columns=columns.COLUMNS)
