"""The sandbox ladder: processes that run a stranger's code and can do nothing but answer."""

from advgym.leaderboards.sandbox.box import Box
from advgym.leaderboards.sandbox.ended import Ended
from advgym.leaderboards.sandbox.ladder import LEVELS, SandboxError, best_level, missing
from advgym.leaderboards.sandbox.spares import Spares
from advgym.leaderboards.sandbox.turn import Turn

__all__ = ["LEVELS", "Box", "Ended", "SandboxError", "Spares", "Turn", "best_level", "missing"]
