"""Attacks of other libraries, unmodified, as agents."""
