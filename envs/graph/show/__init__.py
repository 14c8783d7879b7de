"""Attacked graphs for people: pictures and lines."""
