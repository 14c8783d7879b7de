"""How a submission failed, in fields: what its author reads, and the little of it that leaves a hidden phase."""

from __future__ import annotations

import builtins
import re

import msgspec

OTHER = "another exception"
# The classes that a hidden phase names: with OTHER sixteen, so that a crash tells four bits beside its reason.
CLASSES = (
    "AssertionError", "AttributeError", "FileNotFoundError", "ImportError", "IndexError", "KeyError", "Malformed",
    "MemoryError", "NameError", "NotImplementedError", "OSError", "RuntimeError", "TypeError", "ValueError",
    "ZeroDivisionError", OTHER,
)  # fmt: skip
_FILE = re.compile(r"[\w.-]{1,40}")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One failure.

    Attributes:
        code: of reasons.toml.
        kind: the exception's class; file, line: where in the submission's own files it was raised; each may be empty.
        text: the rest, in the words of whoever noticed: a stranger's own where an exception was raised.
        dealt: the submission had been sent samples, or a victim's weights, by then.
    """

    code: str = ""
    kind: str = ""
    file: str = ""
    line: int = 0
    text: str = ""
    dealt: bool = False

    def said(self) -> str:
        """What the author reads on a public phase.

        >>> Fault(code="crashed", kind="ValueError", file="agent.py", line=3, text="no").said()
        'ValueError: no (agent.py, line 3)'
        """
        what = f"{self.kind}: {self.text}" if self.kind and self.text else self.kind or self.text
        return what + self._place()

    def told(self) -> str:
        """What leaves a hidden phase: a class, and a place where no sample had been dealt yet.

        >>> Fault(code="crashed", kind="UnicodeError", file="agent.py", line=3, text="pixel 7", dealt=True).told()
        'ValueError'
        >>> Fault(code="syntax-error", kind="Seven", file="agent.py", line=3).told()
        'another exception (agent.py, line 3)'
        """
        place = "" if self.dealt else self._place()
        return known(self.kind) + place if self.kind else place.strip(" ()")

    def _place(self) -> str:
        return f" ({self.file}, line {self.line})" if _FILE.fullmatch(self.file) and self.line > 0 else ""


def known(kind: str) -> str:
    """The nearest of `CLASSES` to an exception's class by its name.

    >>> known("RecursionError"), known("Label3OfSample7")
    ('RuntimeError', 'another exception')
    """
    if kind in CLASSES:
        return kind
    found = getattr(builtins, kind, None)
    parents = found.__mro__ if isinstance(found, type) and issubclass(found, BaseException) else ()
    return next((p.__name__ for p in parents if p.__name__ in CLASSES), OTHER)
