"""Doctests of docstrings as code in the API pages: to Markdown `>>>` would be three quotations."""

from __future__ import annotations

import re

import griffe

DOCTEST = re.compile(r"(?m)^>>> .*\n?(?:.+\n?)*")


def fenced(text: str) -> str:
    """The text with every block that begins with a prompt in a fence.

    >>> fenced("Two.\\n\\n>" + ">> 1 + 1\\n2").count("`")
    6
    """
    return DOCTEST.sub(lambda block: f"```python\n{block[0].rstrip()}\n```\n", text)


class Doctests(griffe.Extension):
    """What mkdocstrings runs on everything that it reads."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Fence the examples of one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
