"""What several attacks share. No file here is an attack."""
