"""Images with labels: embedded, from files, the caller's own."""
