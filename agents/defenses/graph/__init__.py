"""Defenses that change the graph before the victim sees it."""
