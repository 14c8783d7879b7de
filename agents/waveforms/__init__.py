"""Attacks on signals over time: what makes sense along one axis only."""
