"""Attacks on graphs: edges, features, injected nodes, poisoned training."""
