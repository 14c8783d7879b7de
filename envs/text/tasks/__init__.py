"""The tasks on texts, built from the rows of tasks.toml."""
