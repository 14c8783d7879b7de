"""Architectures of victims."""
