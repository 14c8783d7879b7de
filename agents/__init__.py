"""Attacks, one file each; defenses in `defenses/`. None of them knows a domain unless it says so."""

if __name__ != "advgym.agents":
    raise ImportError("import advgym.agents, not agents")
