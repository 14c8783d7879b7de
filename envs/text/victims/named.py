"""`transformers:SOURCE` and `prompted:SOURCE`, with the options that follow a question mark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advgym.core.victim import Victim
from advgym.envs.text.victims import hub, prompted
from advgym.errors import AdvgymError
from advgym.lib.spelled import spelled

OPTIONS = {"prompt": "", "labels": (), "calibrate": "", "longest": 0, "cap": 0, "delta": 0.0}


def classifier(name: str, *, source: str = "", longest: int = 0, cap: int = 0) -> Victim:
    """A sequence classifier, or with `?prompt=...&labels=...` a language model that is asked by a prompt."""
    given: dict[str, Any] = {}
    if not Path(source).expanduser().is_dir():
        source, given = spelled(source, OPTIONS, f"transformers:{source.partition('?')[0]}")
    o: dict[str, Any] = {**OPTIONS, "longest": longest, "cap": cap, **given}
    if not {"prompt", "labels", "calibrate"} & set(given):
        return hub.classifier(name, source=source, longest=o["longest"], cap=o["cap"], delta=o["delta"])
    if "delta" in given:
        raise AdvgymError("delta= is for regression, and a prompt asks for labels: leave one of them out")
    return prompted.load(
        source, prompt=o["prompt"], labels=o["labels"], name=name, calibrate=o["calibrate"],
        longest=o["longest"] or None, cap=o["cap"],
    )  # fmt: skip


def by_prompt(name: str, *, source: str = "") -> Victim:
    """A language model that is asked by a prompt."""
    if "?" not in source:
        raise AdvgymError(
            "a prompted model is named with its prompt and labels: prompted:SOURCE?prompt=Review: {text} "
            "Sentiment:&labels=negative,positive"
        )
    return classifier(name, source=source if "prompt=" in source else source + "&prompt=")
