"""Verdicts and figures: an attack is played, judged again by itself, summed up, flagged and filed."""
