"""Models wrapped as victims: recipes of the trained ones, pipelines and checkpoints by name, how they decode."""
