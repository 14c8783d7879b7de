"""Graphs: flips of edges and features against node and graph classifiers, or your own."""
