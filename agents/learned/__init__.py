"""Attacks that were trained before they attack; their weights are in `agents/weights`."""
