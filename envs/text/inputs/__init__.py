"""What a text victim is given: words and the gaps between them, vocabularies, pieces of words."""
