"""Speech: show."""
