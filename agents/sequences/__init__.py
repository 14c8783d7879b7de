"""Attacks on what a model writes, and on several texts at once."""
