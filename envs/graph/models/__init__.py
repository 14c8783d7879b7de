"""Graph networks and defenses of the literature, and their trainers."""
