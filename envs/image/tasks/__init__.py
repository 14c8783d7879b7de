"""Tasks: data, victim, goal and constraint put together."""
