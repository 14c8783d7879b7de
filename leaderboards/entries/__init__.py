"""Submissions and entries as files: cards, entries, disputes, and anyone's check of them."""
