"""Attacks of the literature on words."""
