"""Kinds beside the plain ones: Fields that are mapped, goals on sequences, victims with certificates."""
