"""Speech: measures."""
