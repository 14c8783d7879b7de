"""The closed vocabulary of what agents need and tasks offer; `advgym.offers` says what a task offers."""

WORDS = {
    "graph": "a public graph, `edge_index` in env.context",
    "target": "a sample is one node of that graph",
    "members": "a perturbation is for many nodes of that graph at once",
    "edges": "edits flip edges of that graph",
    "flips": "edits flip edges of that graph, or features of its nodes",
    "injection": "edits connect nodes that the attacker adds",
    "training": "the victim is a training run",
    "text": "a sample is a text",
    "words": "sites are the words of a text, choices are words",
    "deleted": "a probe: a word read as if it were not there",
    "unknown": "a probe: a word read as an unknown one",
    "bugs": "words are misspelt: candidates='typos' or 'homoglyphs'",
    "language-model": "words come from a masked language model: candidates='masked-lm:NAME'",
    "insertions": "words are put in, or two made one",
    "keep": "the goal is that the output stays while words go",
    "weights": "edits are ranked on top of relaxed ones",
}
