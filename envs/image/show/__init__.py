"""Pictures and lines of an attack."""
