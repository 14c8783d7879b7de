"""What a graph victim is given: one clean graph, and many perturbed views of it."""
