"""`advgym serve`: pages, the API and the workers."""
