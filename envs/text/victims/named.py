"""`transformers:SOURCE` and `prompted:SOURCE`, with the options that follow a question mark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from advgym.core.victim import Victim
from advgym.envs.text.victims import hub, prompted
from advgym.errors import AdvgymError
from advgym.lib.options import Options, read
from advgym.lib.spelled import spelled


class Named(Options):
    """Behind the question mark."""

    prompt: Annotated[str, Meta(description="with {text} in it")] = ""
    labels: Annotated[Any, Meta(description="words that it is to answer with, commas between")] = ()
    calibrate: Annotated[str, Meta(description="a text that says nothing, whose scores are taken off")] = ""
    longest: Annotated[int, Meta(ge=0, description="tokens of an input at most; 0: as the model says")] = 0
    cap: Annotated[int, Meta(ge=0, description="elements of a forward at most; 0: as by default")] = 0
    delta: Annotated[float, Meta(ge=0, description="of regression: what counts as another number")] = 0.0


def classifier(name: str, *, source: str = "", longest: int = 0, cap: int = 0) -> Victim:
    """A sequence classifier, or with `?prompt=...&labels=...` a language model that is asked by a prompt."""
    given: dict[str, str] = {}
    what = f"transformers:{source.partition('?')[0]}"
    if not Path(source).expanduser().is_dir():
        source, given = spelled(source, Named, what)
    o = read(Named, {"longest": longest, "cap": cap, **given}, what)
    if not {"prompt", "labels", "calibrate"} & set(given):
        return hub.classifier(name, source=source, longest=o.longest, cap=o.cap, delta=o.delta)
    if "delta" in given:
        raise AdvgymError("delta= is for regression, and a prompt asks for labels: leave one of them out")
    return prompted.load(
        source, prompt=o.prompt, labels=o.labels, name=name, calibrate=o.calibrate,
        longest=o.longest or None, cap=o.cap,
    )  # fmt: skip


def by_prompt(name: str, *, source: str = "") -> Victim:
    """A language model that is asked by a prompt."""
    if "?" not in source:
        raise AdvgymError(
            "a prompted model is named with its prompt and labels: prompted:SOURCE?prompt=Review: {text} "
            "Sentiment:&labels=negative,positive"
        )
    return classifier(name, source=source if "prompt=" in source else source + "&prompt=")
