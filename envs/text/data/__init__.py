"""Texts, their labels and what is known of words: corpora, captions, generators, readers, WordNet's files."""
