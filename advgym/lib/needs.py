"""The words for what agents need and tasks offer, from `needs.toml`; `advgym.core.offers` says what a task offers."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path


@cache
def vocabulary() -> dict[str, str]:
    """Each word and what it means."""
    found: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["needs"]
    return found
