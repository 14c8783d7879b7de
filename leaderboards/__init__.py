"""Boards, scoring, sandbox and web: challenges on top of the gym."""

if __name__ != "advgym.leaderboards":
    raise ImportError("import advgym.leaderboards, not leaderboards")
