"""The commands behind the figures in README.md: `advgym bench`, or `python -m benchmarks.<room>.<name>`."""
