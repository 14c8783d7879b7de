"""Graphs from files, generators, libraries, and one's own."""
