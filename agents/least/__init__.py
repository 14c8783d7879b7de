"""Attacks for the least distortion, one file each."""
