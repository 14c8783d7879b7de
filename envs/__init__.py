"""The four domains: tasks, victims and data."""

if __name__ != "advgym.envs":
    raise ImportError("import advgym.envs, not envs")
