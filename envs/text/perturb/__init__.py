"""Edits of texts as perturbations: the space of choices, and the batch that applies them."""
