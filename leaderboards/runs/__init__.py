"""A submission is run: stages, shards, contestants, workers and engines."""
