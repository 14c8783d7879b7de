"""Defenses: each wraps a victim and is one, one file each."""
