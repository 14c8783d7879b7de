"""Attacks that see nothing but the label."""
