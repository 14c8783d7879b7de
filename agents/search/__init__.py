"""Attacks that search with scores alone."""
