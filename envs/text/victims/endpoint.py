"""Models behind HTTP as text victims: a server of one's own that classifies, or one that speaks OpenAI's protocol.

Answers are kept by content (`advgym.core.cached`), each as soon as it is there, so that a server that fails
loses nothing that was paid for. What names no label is no answer: it is charged, has no scores, and is said.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core.cached import Answer, anew, open_store
from advgym.core.tally import Tally
from advgym.core.victim import Victim
from advgym.envs.text.victims import replies
from advgym.errors import AdvgymError, VictimError
from advgym.lib.endpoint import Endpoint, EndpointError, Limits
from advgym.lib.options import fields_of, read
from advgym.lib.spelled import spelled

log = logging.getLogger("advgym")


class Asked(Limits, kw_only=True):
    """Of every endpoint."""

    labels: Annotated[Any, Meta(description="names of the classes in the order of the scores, commas between")] = ()
    answers: Annotated[Literal["", "labels", "scores"], Meta(description="what it answers with")] = ""
    batch: Annotated[int, Meta(ge=1, description="texts a request")] = 16
    cache: Annotated[Any, Meta(description='"name@version" of a file of answers')] = ""
    key_env: Annotated[str, Meta(description="the variable that holds the key")] = ""


class Server(Asked, kw_only=True):
    """Of `server`."""

    texts: Annotated[str, Meta(description="the field that is sent")] = "texts"
    field: Annotated[str, Meta(description='the field that is read; dots lead inwards: "outputs.probabilities"')] = ""


class OpenAI(Asked, kw_only=True):
    """Of `openai`."""

    batch: Annotated[int, Meta(ge=1, description="texts a request; a chat answers one")] = 1
    base: Annotated[str, Meta(description="the address before /chat/completions")] = "https://api.openai.com/v1"
    key_env: Annotated[str, Meta(description="the variable that holds the key")] = "OPENAI_API_KEY"
    prompt: Annotated[str, Meta(description="with {text} in it")] = ""
    system: Annotated[str, Meta(description="a message before")] = ""
    api: Literal["chat", "completions"] = "chat"
    words: Annotated[int, Meta(ge=1, description="tokens of an answer")] = 8
    top: Annotated[int, Meta(ge=0, description="tokens whose log-probabilities are asked for; 0: as many as told")] = 0


T = TypeVar("T", Server, OpenAI)
APIS = {"chat": "/chat/completions", "completions": "/completions"}
TOP = {"chat": 20, "completions": 5}  # most likely tokens that the protocol tells


class NoAnswer(Exception):
    """An answer that names no label: the core charges that input, which has no scores."""


class Asking:
    """A callable of texts: float32 scores (n, classes).

    Args:
        endpoint: the server.
        write: texts to the JSON that asks for them.
        read: (answer, texts) to a row of scores for each text, or a server's words that name no label.
        batch: texts per request.
        cache: "name@version" of a file, or True for memory alone.
        mark: what an answer depends on beside the text.
        pairs: whether `write` takes pairs of texts.
    """

    def __init__(
        self, endpoint: Endpoint, write: Callable[[list[Any]], Any], read: Callable[[Any, list[Any]], list[Any]],
        *, batch: int, cache: bool | str, mark: dict[str, Any], pairs: bool,
    ) -> None:  # fmt: skip
        if batch < 1:
            raise AdvgymError(f"batch of an endpoint is a whole number of at least 1, not {batch!r}")
        try:
            self.store = open_store(cache)
        except ValueError as error:
            raise AdvgymError(str(error)) from None
        self.endpoint, self.write, self.read, self.batch, self.pairs = endpoint, write, read, batch, pairs
        self.mark = json.dumps([endpoint.url, mark], sort_keys=True).encode()
        self.tally, self.unread = Tally(), 0  # answers that named no label
        self._fresh: dict[bytes, Answer] = {}  # of a call that is about to be made again in parts
        self._width: int | None = None

    def __call__(self, texts: Sequence[Any]) -> Tensor:
        """Scores of every text.

        Raises:
            EndpointError: the server failed; says what is kept.
            NoAnswer: to at least one of them; the others are kept.
        """
        if not isinstance(texts, list | tuple) or not all(isinstance(t, str | tuple | list) for t in texts):
            raise VictimError(
                f"{self.endpoint.url} takes texts, not {type(texts).__name__}: it is a victim of text tasks"
            )
        if not self.pairs and any(not isinstance(t, str) for t in texts):
            raise VictimError("a prompt has one {text}, and the samples are pairs of texts")
        keys = [hashlib.sha256(self.mark + b"\0" + json.dumps(t).encode()).digest() for t in texts]
        known = {k: self._fresh.pop(k) for k in set(keys) if k in self._fresh}
        if not anew() and self.store is not None:
            known |= self.store.find([k for k in keys if k not in known])
        self._ask({k: t for k, t in zip(keys, texts, strict=True) if k not in known}, known)
        lost = [k for k in keys if isinstance(known[k], str)]
        if lost:
            if len(texts) > 1 and anew():
                self._fresh.update(known)
            raise NoAnswer(f"the answer {str(known[lost[0]])[:80]!r} names no label")
        return torch.stack([a for a in (known[k] for k in keys) if isinstance(a, Tensor)])

    def _ask(self, texts: dict[bytes, Any], known: dict[bytes, Answer]) -> None:
        """Ask about these, and enter each answer as it comes."""
        keys, asked = list(texts), 0
        groups = [keys[i : i + self.batch] for i in range(0, len(keys), self.batch)]
        payloads = [self.write([texts[k] for k in group]) for group in groups]
        try:
            for i, rows in self.endpoint.each(payloads, lambda i, a: self._rows(a, [texts[k] for k in groups[i]])):
                new = dict(zip(groups[i], rows, strict=True))
                known |= new
                asked += len(rows)
                if not anew() and self.store is not None:
                    self.store.keep(new)
        except EndpointError as error:
            raise type(error)(f"{error}. {self._kept()}") from None
        finally:
            self.tally.add(asked)

    def _kept(self) -> str:
        if self.store is None or self.store.path is None:
            return "Answers so far are kept in this process alone: cache=NAME@VERSION keeps them in a file"
        return f"Answers so far are kept in {self.store.path} and will not be asked for again: run it once more"

    def _rows(self, answer: Any, texts: list[Any]) -> list[Answer]:
        rows = self.read(answer, texts)
        if len(rows) != len(texts):
            raise EndpointError(
                f"{self.endpoint.url} gives {len(rows)} answers to {len(texts)} texts: none of them can be told apart; "
                "batch=1 asks about one at a time"
            )
        out: list[Answer] = []
        for row in rows:
            if isinstance(row, str):
                self.unread += 1
                if self.unread == 1:
                    log.warning("%s answers %r, which names no label: no answer", self.endpoint.url, row[:80])
                out.append(row)
                continue
            self._width = self._width or len(row)
            if len(row) != self._width or len(row) < 2:
                raise EndpointError(
                    f"{self.endpoint.url} gives {len(row)} scores to a text, {self._width} to others; want one for "
                    "each of at least two classes. One score z of two classes is [0, z]"
                )
            out.append(torch.tensor(row, dtype=torch.float32))
        return out


def _victim(asking: Asking, name: str, answers: str, card: dict[str, Any]) -> Victim:
    found = Victim(asking, name=name, access=answers, card={"endpoint": asking.endpoint.url, **card})
    asking.tally = found.tally
    return found


def _options(kind: type[T], given: dict[str, Any], what: str) -> T:
    """All options, with defaults; a key is refused by name."""
    for name in given:
        if name in ("key", "api_key", "token"):
            raise AdvgymError(f"{name}= would stand in results: put it into a variable and name that, key_env=NAME")
    found = read(kind, given, what)
    found.labels = replies.checked_labels(found.labels)
    return found


def _endpoint(url: str, o: Asked) -> Endpoint:
    return Endpoint(url, o, o.key_env, ("usage", "total_tokens"))


def server(url: str, *, name: str = "", **given: Any) -> Victim:
    """Any address that takes {"texts": [...]} and answers {"scores": [[...], ...]}, or {"labels": [...]}.

    Args:
        url: of http or https.
        name: of the victim; the address without one.
        given: of `Server`; `answers` is "scores" by default, and `labels` are needed where the server names labels.

    Raises:
        AdvgymError: for an option that does not exist or does not fit.
    """
    o = _options(Server, given, "an endpoint")
    answers = o.answers or "scores"
    if answers == "labels" and not o.labels:
        raise AdvgymError("answers=labels needs labels=, the names of all classes: labels=negative,positive")
    field = o.field or answers

    def read(answer: Any, texts: list[Any]) -> list[Any]:
        rows = replies.rows_at(answer, field, url)
        return [replies.row_of(row, o.labels, labels=answers == "labels", url=url) for row in rows]

    mark = {"answers": answers, "labels": o.labels, "texts": o.texts, "field": field}
    asking = Asking(
        _endpoint(url, o), lambda texts: {o.texts: texts}, read,
        batch=o.batch, cache=o.cache or True, mark=mark, pairs=True,
    )  # fmt: skip
    return _victim(asking, name or url, answers, {"classes": list(o.labels)} if o.labels else {})


def openai(model: str, *, name: str = "", **given: Any) -> Victim:
    """A model behind OpenAI's protocol (chat or completions), which is asked for a label by a prompt.

    Args:
        model: its name at the server.
        name: of the victim.
        given: of `OpenAI`; `labels` are the words that it answers with, and `answers` says how they are read: "labels"
            (the first words of the answer) or "scores" (log-probabilities of the first token, where they are told).
    """
    o = _options(OpenAI, given, "openai:MODEL")
    if not model:
        raise AdvgymError("a model is named as its server knows it: openai:MODEL?base=...&prompt=...&labels=...")
    replies.check_prompt(o.prompt)
    if not o.labels:
        raise AdvgymError("openai:MODEL needs labels=, the words that it is to answer with: labels=negative,positive")
    chat, answers = o.api == "chat", o.answers or "labels"
    if chat and o.batch != 1:
        raise AdvgymError("a chat answers one text a request: leave batch= at 1, and set concurrency=")
    url = o.base.rstrip("/") + APIS[o.api]
    top = (o.top or TOP[o.api]) if answers == "scores" else 0
    asked = {"model": model, "temperature": 0, "max_tokens": 1 if top else o.words}
    if top:
        asked |= {"logprobs": True, "top_logprobs": top} if chat else {"logprobs": top}
    before = [{"role": "system", "content": o.system}] if o.system else []

    def write(texts: list[str]) -> dict[str, Any]:
        prompts = [replies.filled(o.prompt, t) for t in texts]
        if chat:
            return {**asked, "messages": [*before, {"role": "user", "content": prompts[0]}]}
        return {**asked, "prompt": prompts}

    def read(answer: Any, texts: list[str]) -> list[Any]:
        choices = replies.choices_in(answer, url)
        if top:
            return [replies.scores_by_tokens(replies.tokens_of(c, url), o.labels) for c in choices]
        return [replies.scores_by_words(replies.text_of(c, url), o.labels) for c in choices]

    mark = {**asked, "prompt": o.prompt, "system": o.system, "labels": o.labels}
    asking = Asking(_endpoint(url, o), write, read, batch=o.batch, cache=o.cache or True, mark=mark, pairs=False)
    card = {"model": model, "prompt": o.prompt, "classes": list(o.labels)}
    return _victim(asking, name or f"openai:{model}", answers, card)


def by_address(name: str, *, source: str = "", scheme: str = "http") -> Victim:
    """`server` as a row of [victims]; "http://HOST/PATH?labels=..." names one on the command line."""
    url, given = spelled(f"{scheme}:{source}", Server, "an endpoint", others=True)
    return server(url, name=name, **given)


def by_model(name: str, *, source: str = "") -> Victim:
    """`openai` as a row of [victims]."""
    model, given = spelled(source, OpenAI, "openai:MODEL")
    return openai(model, name=name, **given)


def spent(victim: Victim) -> dict[str, Any]:
    """Requests and tokens that a victim of this module has cost, and its limits."""
    asking = victim.model
    if not isinstance(asking, Asking):
        raise AdvgymError(f"victim {victim.name!r} is no endpoint")
    found = asking.endpoint
    limits = {name: getattr(found.limits, name) for name in fields_of(Limits)}
    return {"requests": found.requests, "tokens": found.tokens, "unread": asking.unread, **limits}
