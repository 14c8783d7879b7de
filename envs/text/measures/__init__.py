"""What is measured of a pair of texts, after the attack."""
