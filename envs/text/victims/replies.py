"""What a server answered, as scores: rows of numbers, named labels, words, and log-probabilities of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from advgym.envs.text.data.labels import folded
from advgym.errors import AdvgymError
from advgym.lib.endpoint import EndpointError

HOLE = "{text}"
LARGE = 3e38  # of float32


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that has no place for the text, or several."""
    if prompt.count(HOLE) != 1:
        raise AdvgymError(
            f"a prompt holds {HOLE} once, where the text goes, as in 'Review: {HOLE} Sentiment:', not {prompt!r}"
        )


def filled(prompt: str, text: str) -> str:
    """The prompt with the text in its place; braces of the text mean nothing."""
    before, _, after = prompt.partition(HOLE)
    return before + text + after


def checked_labels(labels: Any) -> tuple[str, ...]:
    """Names of classes: none, or at least two that differ.

    Raises:
        AdvgymError: for another number, an empty one, or two that are the same but for case and blanks.
    """
    names = tuple(str(n).strip() for n in (labels.split(",") if isinstance(labels, str) else labels))
    if not names:
        return ()
    if len(names) < 2 or not all(folded(n) for n in names) or len({folded(n) for n in names}) < len(names):
        raise AdvgymError(f"labels are at least two words that differ, labels=negative,positive, not {','.join(names)}")
    return names


# -- a server of one's own ---------------------------------------------------------------------------------------
def rows_at(answer: Any, field: str, url: str) -> list[Any]:
    """The list at a field ("outputs.scores": dots lead inwards), or the answer itself where it is a list."""
    found = answer
    if not isinstance(answer, list):
        for part in field.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, list):
        have = ", ".join(map(str, answer)) if isinstance(answer, dict) else type(answer).__name__
        raise EndpointError(f"{url} answers no list {field!r} (it has: {have[:120] or 'nothing'}): name it with field=")
    return found


def row_of(row: Any, names: Sequence[str], *, labels: bool, url: str) -> list[float] | str:
    """Scores of one text, or the words of an answer that is none.

    Args:
        row: numbers, numbers by name, a list of {"label": ..., "score": ...}; with `labels`, a name or a place.
        names: of the classes.
    """
    if labels:
        return _one_hot(_place(row, names), len(names), row)
    if isinstance(row, list) and row and all(isinstance(r, dict) and "label" in r and "score" in r for r in row):
        row = {str(r["label"]): r["score"] for r in row}
    if isinstance(row, Mapping):
        if not names:
            raise EndpointError(f"{url} names its scores ({', '.join(map(str, row))}): say their order, labels=...")
        by = {folded(k): v for k, v in row.items()}
        row = [by.get(folded(n)) for n in names]
    if not isinstance(row, list) or not all(_finite(v) for v in row):
        return _words(row)
    if names and len(row) != len(names):
        raise EndpointError(f"{url} gives {len(row)} scores to a text, and labels= names {len(names)} classes")
    return [float(v) for v in row]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGE < value < LARGE


def _place(value: Any, names: Sequence[str]) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < len(names) else None
    same = [i for i, n in enumerate(names) if isinstance(value, str) and folded(n) == folded(value)]
    return same[0] if same else None


def _one_hot(place: int | None, classes: int, said: Any) -> list[float] | str:
    return _words(said) if place is None else [float(i == place) for i in range(classes)]


def _words(said: Any) -> str:
    return said if isinstance(said, str) else str(said)


# -- a model that is prompted ------------------------------------------------------------------------------------
def choices_in(answer: Any, url: str) -> list[dict[str, Any]]:
    """The choices of an answer, in the order of the prompts."""
    found = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(found, list) or not all(isinstance(c, dict) for c in found):
        raise EndpointError(f"{url} answers no list 'choices': it does not speak OpenAI's protocol at this address")
    at = [c.get("index", i) for i, c in enumerate(found)]
    if sorted(map(str, at)) != sorted(map(str, range(len(found)))):
        raise EndpointError(f"{url} numbers its {len(found)} choices {at[:8]}: they cannot be told apart; use batch=1")
    return [c for _, c in sorted(zip(at, found, strict=True), key=lambda pair: int(pair[0]))]


def text_of(choice: Mapping[str, Any], url: str) -> str:
    """The words of a choice; "" of one that refuses."""
    message = choice.get("message", choice)
    found = message.get("content", message.get("text", "")) if isinstance(message, Mapping) else None
    if found is not None and not isinstance(found, str):
        raise EndpointError(f"{url} answers a choice without text: {str(choice)[:80]}")
    return found or ""


def tokens_of(choice: Mapping[str, Any], url: str) -> list[tuple[str, float]]:
    """(token, log-probability) of the likeliest first tokens."""
    told = choice.get("logprobs")
    first: list[tuple[Any, Any]] = []
    if isinstance(told, Mapping):
        content, top = (_first(told.get(name)) for name in ("content", "top_logprobs"))
        if content:
            rows = content.get("top_logprobs") or [content]
            rows = rows if isinstance(rows, list) else [rows]
            first = [(r.get("token"), r.get("logprob")) if isinstance(r, Mapping) else (None, None) for r in rows]
        elif top:
            first = list(top.items())
    if not first or not all(isinstance(t, str) and _finite(p) for t, p in first):
        raise EndpointError(f"{url} tells no log-probabilities: answers=labels reads the words instead")
    return [(t, float(p)) for t, p in first]


def _first(found: Any) -> Mapping[str, Any]:
    """The first object of a list; an empty one where there is none."""
    return found[0] if isinstance(found, list) and found and isinstance(found[0], Mapping) else {}


def scores_by_words(text: str, names: Sequence[str]) -> list[float] | str:
    """1 at the label that an answer begins with, 0 elsewhere; the answer itself where it begins with none.

    Case and what stands before the first letter do not count; of two labels that fit the longer one is meant.

    >>> scores_by_words('"Positive." I liked it', ["negative", "positive"])
    [0.0, 1.0]
    >>> scores_by_words("As a language model I cannot", ["negative", "positive"])
    'As a language model I cannot'
    """
    start = next((i for i, c in enumerate(text) if c.isalnum()), len(text))
    said = text[start:].casefold()
    fits = []
    for i, name in enumerate(names):
        word = name.casefold()
        if said.startswith(word) and not said[len(word) : len(word) + 1].isalnum():
            fits.append((len(word), i))
    return _one_hot(max(fits)[1] if fits else None, len(names), text)


def scores_by_tokens(tokens: Sequence[tuple[str, float]], names: Sequence[str]) -> list[float] | str:
    """Log-probability of each label by the first token: the sum over tokens that begin this label and no other.

    A label that none of them begins has the least of those told, which its own does not exceed.
    """
    words = [n.casefold() for n in names]
    sums: list[list[float]] = [[] for _ in names]
    for token, logprob in tokens:
        part = token.strip().casefold()
        fits = [i for i, w in enumerate(words) if part and w.startswith(part)]
        if len(fits) == 1:
            sums[fits[0]].append(logprob)
    if not any(sums):
        return tokens[0][0]
    least = min(p for _, p in tokens)
    return [math.log(sum(math.exp(p - max(s)) for p in s)) + max(s) if s else least for s in sums]
