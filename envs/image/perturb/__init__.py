"""What is done to an image: added, moved, recoloured, covered, set."""
