"""What a figure is compared with: no attack, but the row beside every attack."""
