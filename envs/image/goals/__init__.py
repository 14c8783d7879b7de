"""Goals beyond the core's: captions."""
