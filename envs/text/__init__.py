"""Texts: swapped words, paraphrased sentences, rewritten headlines."""
