"""Speech: perturb."""
