"""Which paper an agent reads like, as its own docstrings say."""

from __future__ import annotations

import inspect
import re

from advgym.registry import Agent

REFERENCE = re.compile(r"\(([^()]*?(?:19|20)\d\d[a-z]?[^()]*)\)")


def references(text: str, most: int = 2) -> str:
    """The first references of a text: what stands in brackets with a year.

    >>> references("A search (Du et al. 2020; but see below), as (some) do (Li 2019).")
    'Du et al. 2020; but see below; Li 2019'
    """
    found = (" ".join(part.split()) for part in REFERENCE.findall(text))
    return "; ".join(list(dict.fromkeys(found))[:most])


def paper_of(entry: Agent) -> str:
    """The references of an agent: of its file, else of its function; "" where neither names one."""
    bare = inspect.unwrap(getattr(entry.attack, "func", entry.attack))
    module = inspect.getmodule(bare)
    return references((inspect.getdoc(module) or "") if module else "") or references(inspect.getdoc(bare) or "")
