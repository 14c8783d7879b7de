"""Speech: goals."""
