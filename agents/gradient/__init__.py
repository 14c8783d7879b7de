"""Attacks that follow a gradient, the victim's or a surrogate's."""
