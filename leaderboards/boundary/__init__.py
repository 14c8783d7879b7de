"""The process boundary: what crosses it, and both of its sides."""
