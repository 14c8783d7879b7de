"""Flips as perturbations: the batches that apply them."""
