"""What a constraint is: a test of single substitutes, or a law of whole texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Test = Callable[[str, str], bool]  # (lower-case word, lower-case substitute) -> whether it may stand there


class Law(Protocol):
    """A constraint on whole texts."""

    def allow(self, texts: list[str], clean: list[str]) -> list[bool]:
        """Whether each perturbed text may stand for its clean one."""
        ...

    def public(self) -> dict[str, Any]:
        """The arguments that make it again, in another process."""
        ...
