"""Defenses that watch the input and give a risk."""
