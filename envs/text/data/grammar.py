"""A seeded generator of reviews whose grammar knows the meaning (short news: see `news`).

A meaning is a frame with its slots filled by synsets; a wording is a template of that frame with one word of each
synset. Any other wording of the same meaning is a paraphrase by construction. Which of the equal wordings a writer
takes leans with the class of the text (its register), so a trained victim learns what it should not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from advgym.envs.text.data import news

NOUNS = {
    "film": "flick picture show movie production film feature",
    "plot": "storyline plot yarn story narrative tale",
    "acting": "playing acting portrayal performance rendition",
    "music": "tune music soundtrack score composition",
    "script": "talk script dialogue screenplay writing",
    "pace": "speed pace rhythm tempo cadence",
    "ending": "close ending finish finale conclusion",
    "scene": "bit scene moment sequence passage",
    "viewer": "punter viewer watcher moviegoer spectator filmgoer",
    "director": "helmer director maker filmmaker auteur",
}
ADVERBS = {
    "very": "awfully very really truly deeply wholly",
    "again": "continually repeatedly often frequently regularly",
}
PRAISE = {
    "great": "nice good fine great excellent superb brilliant",
    "moving": "tender touching moving stirring poignant heartfelt",
    "funny": "jokey funny amusing comical witty droll",
    "clever": "cute clever smart sharp shrewd canny",
    "fresh": "new fresh novel original inventive",
    "love": "like enjoy love cherish treasure adore",
    "succeeds": "passes works succeeds triumphs prevails",
}
BLAME = {
    "bad": "terrible awful bad poor wanting lacking",
    "dull": "boring dull tedious dreary ponderous languid",
    "silly": "stupid dumb silly foolish absurd fanciful",
    "stale": "tired stale worn familiar derivative",
    "clumsy": "clunky clumsy botched awkward unrefined",
    "hate": "hate loathe dislike resent deplore",
    "fails": "flops tanks fails stumbles falters",
}
PRAISES = ("great", "moving", "funny", "clever", "fresh")
BLAMES = ("bad", "dull", "silly", "stale", "clumsy")
ASPECTS = ("plot", "acting", "music", "script", "pace", "ending")
SYNSETS: dict[str, tuple[str, ...]] = {
    name: tuple(words.split()) for part in (NOUNS, ADVERBS, PRAISE, BLAME) for name, words in part.items()
}

# Six wordings of each frame; templates lean with the register as words do.
FRAMES: tuple[tuple[str, ...], ...] = (
    (
        "the {aspect} of the {film} is {very} {adj}",
        "{very} {adj} is how i would call the {aspect} of this {film}",
        "this {film} comes with {very} {adj} {aspect}",
        "i found the {aspect} in the {film} {very} {adj}",
        "its {aspect} makes for {very} {adj} {film}",
        "in this {film} one meets {very} {adj} {aspect}",
    ),
    (
        "any {viewer} will {feel} this {film}",
        "there is no {viewer} who would not {feel} this {film}",
        "this {film} is what every {viewer} will {feel}",
        "it makes each {viewer} {feel} the whole {film}",
        "to {feel} this {film} comes easily to a {viewer}",
        "what a {viewer} can only {feel} is such a {film}",
    ),
    (
        "{scene} after {scene} the {film} is {again} {adj}",
        "the {film} has one {adj} {scene} {again}",
        "{again} this {film} shows us some {adj} {scene}",
        "every {scene} of the {film} is {again} {adj}",
        "a {film} whose {scene} is {again} {adj}",
        "one sees a {scene} that turns {adj} {again} in this {film}",
    ),
    (
        "the {director} {does} with {adj} {aspect}",
        "with {adj} {aspect} the {director} {does}",
        "here the {director} {does} by {adj} {aspect}",
        "it is through {adj} {aspect} that the {director} {does}",
        "our {director} {does} and the {aspect} is {adj}",
        "{adj} {aspect} is where the {director} {does}",
    ),
)
SHORT = 20  # words in a short review at most
SENTENCE = 13  # words in one sentence at most, its full stop among them
SENTENCES = 5
LEAN = 0.85  # log-odds of a word at the end of its synset, in either register; templates lean by half of that


@dataclass(frozen=True)
class Meaning:
    """One statement: a frame and the synset in each of its slots."""

    frame: int
    slots: tuple[tuple[str, str], ...]
    praise: bool

    def choices(self) -> dict[str, tuple[str, ...]]:
        """The words that may stand in each slot."""
        return {slot: SYNSETS[synset] for slot, synset in self.slots}


@cache
def _register(size: int, register: int, lean: float) -> np.ndarray:
    """Cumulative probabilities of `size` equal wordings in register 0, 1, or in none (-1)."""
    tilt = 0.0 if register < 0 else (2 * register - 1) * lean
    p = np.exp(tilt * np.linspace(-1, 1, size)) if size > 1 else np.ones(1)
    return np.cumsum(p / p.sum())


def _pick(draw: np.random.Generator, size: int, register: int, lean: float) -> int:
    return min(int(np.searchsorted(_register(size, register, lean), draw.random(), side="right")), size - 1)


def think(draw: np.random.Generator, praise: bool) -> Meaning:
    """A random statement of one polarity."""
    frame = int(draw.integers(len(FRAMES)))
    adjectives = PRAISES if praise else BLAMES
    slots = {
        "film": "film", "viewer": "viewer", "scene": "scene", "director": "director", "very": "very", "again": "again",
        "aspect": ASPECTS[draw.integers(len(ASPECTS))],
        "adj": adjectives[draw.integers(len(adjectives))],
        "feel": "love" if praise else "hate",
        "does": "succeeds" if praise else "fails",
    }  # fmt: skip
    used = tuple((k, v) for k, v in slots.items() if "{" + k + "}" in FRAMES[frame][0])
    return Meaning(frame, used, praise)


def say(draw: np.random.Generator, meaning: Meaning, register: int, template: int | None = None) -> list[str]:
    """A wording of a statement in a register (0, 1; -1 for none)."""
    wordings = FRAMES[meaning.frame]
    if template is None:
        template = _pick(draw, len(wordings), register, LEAN / 2)
    fill = {slot: words[_pick(draw, len(words), register, LEAN)] for slot, words in meaning.choices().items()}
    return wordings[template].format(**fill).split()


def paraphrases(draw: np.random.Generator, meaning: Meaning, said: list[str]) -> list[list[str]]:
    """Five other wordings of a statement: one by each of the templates that were not used, in either register."""
    out = []
    for template in range(len(FRAMES[meaning.frame])):
        if not _by_template(meaning, template, said):
            out.append(say(draw, meaning, int(draw.integers(2)), template))
    return out


def _by_template(meaning: Meaning, template: int, said: list[str]) -> bool:
    parts = FRAMES[meaning.frame][template].split()
    return len(parts) == len(said) and all(a[0] == "{" or a == b for a, b in zip(parts, said, strict=True))


def short_review(draw: np.random.Generator, label: int) -> list[str]:
    """Two statements of at most SHORT words; the second one has the last word on the label."""
    while True:
        contrary = draw.random() < 0.15
        first = say(draw, think(draw, bool(label) != contrary), label)
        second = say(draw, think(draw, bool(label)), label)
        words = [*first, "but" if contrary else "and", *second]
        if len(words) <= SHORT:
            return words


def long_review(draw: np.random.Generator, label: int) -> list[tuple[Meaning, list[str]]]:
    """Three to five sentences; at most one of them is contrary to the label."""
    many = int(draw.integers(3, SENTENCES + 1))
    contrary = int(draw.integers(many)) if draw.random() < 0.3 else -1
    out = []
    for i in range(many):
        meaning = think(draw, bool(label) != (i == contrary))
        out.append((meaning, [*say(draw, meaning, label), "."]))
    return out


@cache
def review_words() -> tuple[str, ...]:
    """Every word of the reviews, sorted."""
    words = {"and", "but", "."} | {w for s in SYNSETS.values() for w in s}
    for frame in FRAMES:
        words |= news.literals(frame)
    return tuple(sorted(words))


def synonyms() -> dict[str, list[str]]:
    """Word -> the other words of its synset, over reviews and news."""
    out: dict[str, list[str]] = {}
    for words in (*SYNSETS.values(), *news.NEWS_SYNSETS):
        for word in words:
            if word in out:
                raise ValueError(f"{word!r} is in two synsets")
            out[word] = [other for other in words if other != word]
    return out


@cache
def digest() -> str:
    """Twelve hex digits that change with what these grammars write."""
    some = [
        [short_review(review_rng("train", i, 0), i % 2), [w for _, w in long_review(review_rng("train", i, 1), i % 2)],
         news.article(review_rng("train", i, 2))]
        for i in range(100)
    ]  # fmt: skip
    return hashlib.sha256(repr((review_words(), news.news_words(), some)).encode()).hexdigest()[:12]


def review_rng(split: str | int, index: int, stream: int) -> np.random.Generator:
    """The generator of one sample, the same whatever else is drawn; an integer split is a seed of its own."""
    if isinstance(split, int):
        return np.random.default_rng([3, stream, index, split])
    return np.random.default_rng([{"train": 1, "test": 2}[split], stream, index])
