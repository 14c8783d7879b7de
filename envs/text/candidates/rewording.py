"""Rewordings of English sentences by rules that keep the meaning: contractions, clause order, a frame around the whole.

No parser and no model: a rule fires on function words and commas alone, and stays out where those do not decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Words = list[str]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Whole forms of contractions; 's and 'd stand for several words, so they are only written out after a pronoun.
FULL = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'m": "am"}
STEMS = {"ca": "can", "wo": "will", "sha": "shall"}
PRONOUNS = _set("it he she that there what this who")
NEGATED = _set("is are was were do does did has have had could should would")
# A clause that begins so may stand before or after the main clause.
SUBORDINATORS = _set("although though while because if when whenever unless whereas despite since")
NOT_BEFORE = _set("even as what only just and or but than even especially particularly like that , ;")
SUBJECTS = _set("the this that these those it he she they we you i there its his her their our my")
VERBS = _set("is are was were has have had does do did can could will would should may might must 's 're")
LINKED = _set("is are was were be both very so too more as always a an the , this its")
FUNCTION = SUBJECTS | VERBS | NOT_BEFORE | SUBORDINATORS | _set("a an in of to for with on at by not n't")
BEFORE = ("all in all ,", "in short ,", "in my view ,", "on the whole ,")
AFTER = (", all in all", ", in my view", ", on the whole")
SAYING = ("i would say that", "it must be said that", "the fact is that")
PIECES = re.compile(
    r"n't|'(?:s|re|ve|ll|d|m)\b|\.\.\.|[.,;:!?]|[^\s.,;:!?]+?(?=n't|'(?:s|re|ve|ll|d|m)\b|[\s.,;:!?]|$)"
)
ATTACHED = re.compile(r"\w[.,;:!?](?:\s|$)|\w'(?:s|re|ve|ll|d|m)\b|\wn't\b")


def tokens(text: str) -> Words:
    """Running text as words, with punctuation and contractions apart.

    >>> tokens("It doesn't work, does it?")
    ['It', 'does', "n't", 'work', ',', 'does', 'it', '?']
    """
    return PIECES.findall(text)


def reword(sentence: str, most: int) -> list[str]:
    """At most `most` other wordings of a sentence, tokenised ("it 's fine .") or running ("It's fine.") as it is.

    >>> reword("although it 's slow , the film does n't bore .", 3)[0]
    "the film does n't bore , although it 's slow ."
    """
    words = sentence.split()
    running = bool(ATTACHED.search(sentence))
    if running:
        words = tokens(sentence)
        if words and (words[0].lower() in FUNCTION or words[0] in ("It", "There")) and words[0] != "I":
            words[0] = words[0].lower()
    end = [words.pop()] if words and words[-1] in (".", "!", "?", "...") else []
    if len(words) < 2:
        return []
    found: dict[str, None] = {}
    for other in _wordings(words):
        text = _running([*other, *end]) if running else " ".join([*other, *end])
        if text != sentence:
            found.setdefault(text)
    return list(found)[:most]


def _wordings(words: Words) -> Iterator[Words]:
    """Orders first, then frames, then both, so that a short list holds different kinds."""
    orders = [other for rule in (moved_clause, contrast, swapped_pair) if (other := rule(words)) is not None]
    spelling = [other for rule in (expanded, contracted) if (other := rule(words)) is not None]
    framed = list(frames(words))
    yield from orders
    yield from framed[:2]
    yield from spelling
    yield from framed[2:]
    for base in (*spelling, *orders):
        yield from list(frames(base))[:2]


def expanded(words: Words) -> Words | None:
    """Contractions written out: `it 's` to `it is`, `does n't` to `does not`, `ca n't` to `can not`."""
    out = list(words)
    for i in range(1, len(out)):
        before = out[i - 1].lower()
        if out[i] == "n't":
            out[i - 1] = STEMS.get(before, out[i - 1])
        after = out[i + 1] if i + 1 < len(out) else ""
        if out[i] in FULL:
            out[i] = FULL[out[i]]
        elif out[i] == "'s" and before in PRONOUNS and after not in ("been", "got") and not after.endswith("ed"):
            out[i] = "is"
    return out if out != words else None


def contracted(words: Words) -> Words | None:
    """The inverse: `it is` to `it 's`, `does not` to `does n't`, where something follows."""
    out = list(words)
    for i in range(1, len(out) - 1):
        before = out[i - 1].lower()
        if out[i] == "not" and before in NEGATED:
            out[i] = "n't"
        elif out[i] == "is" and before in ("it", "there", "that", "he", "she") and out[i + 1] != ",":
            out[i] = "'s"
    return out if out != words else None


def moved_clause(words: Words) -> Words | None:
    """`although A , B` to `B , although A` and back, where a single comma, or none, parts the two."""
    places = [i for i, w in enumerate(words) if w.lower() in SUBORDINATORS]
    commas = [i for i, w in enumerate(words) if w == ","]
    if len(places) != 1 or len(commas) > 1:
        return None
    at = places[0]
    if at == 0 and commas and 2 <= commas[0] < len(words) - 2:
        return [*words[commas[0] + 1 :], ",", *words[: commas[0]]]
    start = at - 1 if commas and commas[0] == at - 1 else at
    free = start >= 2 and len(words) - at > 2 and (start < at or words[at - 1].lower() not in NOT_BEFORE)
    if free and (not commas or start < at):
        return [*words[at:], ",", *words[:start]]
    return None


def contrast(words: Words) -> Words | None:
    """`A , but B` to `although A , B`, where both begin with a subject."""
    places = [i for i in range(2, len(words) - 3) if words[i] == "but" and words[i - 1] == ","]
    if len(places) != 1 or words.count(",") != 1 or words[0].lower() not in SUBJECTS:
        return None
    at = places[0]
    if words[at + 1].lower() not in SUBJECTS or not VERBS & set(words[:at]) or not VERBS & set(words[at:]):
        return None
    return ["although", *words[:at], *words[at + 1 :]]


def swapped_pair(words: Words) -> Words | None:
    """`X and Y` to `Y and X` for the first pair of single content words that a function word introduces."""
    for i in range(2, len(words) - 1):
        one, other = words[i - 1], words[i + 1]
        plain = all(w.isalpha() and len(w) > 2 and w.lower() not in FUNCTION for w in (one, other))
        closed = i + 2 == len(words) or words[i + 2].lower() in FUNCTION
        if words[i] == "and" and plain and closed and words[i - 2].lower() in LINKED - {"a", "an"}:
            return [*words[: i - 1], other, "and", one, *words[i + 2 :]]
    return None


def frames(words: Words) -> Iterator[Words]:
    """The sentence inside a frame that adds no judgement: `all in all , S`, `S , in my view`, `i would say that S`."""
    whole = words[0].lower() in SUBJECTS and bool(VERBS & set(words[1:6])) and words[0].lower() != "that"
    groups: list[list[tuple[str, str]]] = [
        [(saying, "") for saying in SAYING] if whole else [],
        [("", after) for after in AFTER],
        [(before, "") for before in BEFORE],
    ]
    for nth in range(max(map(len, groups))):
        for group in groups:
            if nth < len(group):
                before, after = group[nth]
                yield [*before.split(), *words, *after.split()]


def _running(words: Words) -> str:
    """Words as running text: punctuation and contractions attached, a capital in front."""
    text = " ".join(words)
    text = re.sub(r"\s+(n't|'(?:s|re|ve|ll|d|m)\b|[.,;:!?])", r"\1", text)
    text = re.sub(r"\bi\b", "I", text)
    return text[:1].upper() + text[1:]
