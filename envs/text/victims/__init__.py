"""Models wrapped as victims: recipes of the shipped ones, checkpoints, pipelines, callables of one's own."""
