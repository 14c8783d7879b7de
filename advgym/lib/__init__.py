"""What any project would have: files, weights, digests, checks of values. Nothing here knows an attack."""
