"""Graph networks wrapped as victims: recipes, training runs, modules of one's own."""
