"""What may stand in for a word: sources of candidates, one a file, by name, as objects, or several joined."""

from __future__ import annotations

from advgym.envs.text.candidates.source import Source
from advgym.envs.text.candidates.sources import NAMED, PLAIN, read_sources

__all__ = ["NAMED", "PLAIN", "Source", "read_sources"]
