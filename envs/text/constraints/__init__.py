"""What a substitute, and a whole perturbed text, must obey; one constraint a file, each an option of a task's row."""

from __future__ import annotations

from advgym.envs.text.constraints.law import Law
from advgym.envs.text.constraints.rules import Rules, read_rules

__all__ = ["Law", "Rules", "read_rules"]
