"""Defenses that train the victim again."""
