"""Defenses that change the input before the victim sees it."""
