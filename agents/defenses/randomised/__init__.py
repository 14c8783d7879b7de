"""Defenses that answer by a vote over random draws."""
