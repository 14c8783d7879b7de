"""Speech: constraints."""
