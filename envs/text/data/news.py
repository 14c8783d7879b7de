"""Short news and their headlines: the headline is a function of the meaning, whatever the wording."""

from __future__ import annotations

from functools import cache

import numpy as np

# headline token -> synset. Only its first SEEN words are ever written (moods: all): a victim meets the others in
# attacks alone.
SUBJECTS = {
    "firm": "company firm business corporation enterprise",
    "state": "government state administration cabinet authorities",
    "team": "team squad side club lineup",
    "police": "police officers constables cops troopers",
    "doctors": "doctors physicians medics clinicians surgeons",
    "bank": "bank lender financier moneylender",
    "school": "school college academy institute seminary",
    "farmers": "farmers growers peasants planters ploughmen",
}
VERBS = {
    "cuts": "cut reduced lowered trimmed slashed",
    "lifts": "raised increased lifted boosted hiked",
    "bans": "banned prohibited outlawed barred forbade",
    "starts": "started launched began commenced initiated",
    "rejects": "rejected refused declined spurned rebuffed",
    "hails": "praised lauded hailed commended extolled",
}
OBJECTS = {
    "prices": "prices costs charges fees tariffs",
    "wages": "wages salaries earnings pay stipends",
    "deal": "deal agreement pact accord compact",
    "tests": "tests trials exams assays probes",
    "plans": "plans proposals schemes projects blueprints",
    "works": "repairs renovations refits overhauls refurbishments",
}
PLACES = {
    "city": "city town metropolis municipality",
    "coast": "coast shore seaside seashore littoral",
    "north": "north highlands uplands northlands",
    "port": "harbour port docks quay wharf",
    "border": "border frontier boundary borderland",
}
# A claim is marked at the head of the headline, so every later word moves by one place.
MOODS = {
    "claim": "reportedly allegedly supposedly purportedly ostensibly",
    "": "today now currently presently nowadays",
}
SAYERS = {"": "sources insiders observers witnesses onlookers"}
NEWS = (
    "the {subject} {mood} {verb} the {object} in the {place}",
    "in the {place} the {subject} {mood} {verb} the {object}",
    "{mood} the {subject} of the {place} {verb} their {object}",
    "{sayer} say the {subject} {mood} {verb} the {object} at the {place}",
    "the {object} in the {place} were {mood} {verb} by the {subject}",
)
ARTICLE = 16  # words in an article at most
HEADLINE = 7  # tokens in a headline at most, its end among them
HEAD_WORDS: tuple[str, ...] = ("claim", *SUBJECTS, *VERBS, *OBJECTS, *PLACES)
SEEN = 2
_NEWS_PARTS = (SUBJECTS, VERBS, OBJECTS, PLACES, MOODS, SAYERS)
NEWS_SYNSETS: list[tuple[str, ...]] = [tuple(words.split()) for part in _NEWS_PARTS for words in part.values()]


def article(draw: np.random.Generator) -> tuple[list[str], list[str]]:
    """(the words of a short piece of news, the words of its headline)."""
    fill: dict[str, str] = {}
    head: dict[str, str] = {}
    names = ("subject", "verb", "object", "place", "mood", "sayer")
    for slot, table in zip(names, _NEWS_PARTS, strict=True):
        head[slot] = list(table)[draw.integers(len(table))]
        words = table[head[slot]].split()[: None if slot == "mood" else SEEN]
        fill[slot] = words[draw.integers(len(words))]
    text = NEWS[draw.integers(len(NEWS))].format(**fill).split()
    order = ("mood", "subject", "verb", "object", "place")
    return text, [head[slot] for slot in order if head[slot]]


def literals(templates: tuple[str, ...]) -> set[str]:
    """The words of templates that stand for themselves."""
    return {word for t in templates for word in t.split() if word[0] != "{"}


@cache
def news_words() -> tuple[str, ...]:
    """Every word of the news, sorted."""
    return tuple(sorted(literals(NEWS) | {w for s in NEWS_SYNSETS for w in s}))
