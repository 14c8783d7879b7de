"""The search of our own against plain greedy: success, distinct queries, words changed, success with the meaning kept.

The goal: at least the success of plain greedy (`greedy-search` and `wir-delete`) at no more than half of its distinct
queries, everywhere, and with as much of the meaning kept. The last rows leave the public log-odds out: what the model
does by itself.

Command: python -m benchmarks.text.own_agent   (200 sentences; --episodes 1000 for the published figures)
         python -m benchmarks.text.own_agent --dataset mr-fresh --victims mr-cnn,mr-bert,mr-tfidf --episodes 1000
                                               (sentences that nothing was chosen on)
"""

from __future__ import annotations

import sys

from benchmarks.text.search_grid import main

if __name__ == "__main__":
    if not any(a.startswith("--victims") for a in sys.argv):
        sys.argv += ["--victims", "mr-cnn,mr-bert"]
    sys.argv += ["--searches", "greedy-search,wir-delete,additive"]
    main()
