"""The tasks on graphs, built from the rows of tasks.toml."""
