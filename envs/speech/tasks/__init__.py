"""Speech: tasks."""
