"""Attacks on what a victim learns from: training rows with a trigger."""
