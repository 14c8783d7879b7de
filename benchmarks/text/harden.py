"""Adversarial training of a user's own TF-IDF model through `advgym.harden`: robust accuracy before and after.

Movie Reviews: every fourth training sentence is trained on, the first 200 assigned test sentences are attacked (none
of them is trained on). Nothing was tuned: the model's and the attack's settings are those a first try would take. The
control trains on as many random versions as there are originals.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

EPISODES, EVERY = 200, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    given = parser.parse_args()

    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    import advgym
    from advgym.envs.text.data.corpora import movie_reviews

    corpus = movie_reviews()
    train, test = (
        [(" ".join(t), label) for t, label in zip(corpus.texts[s], corpus.labels[s], strict=True)]
        for s in ("train", "test")
    )
    train = train[::EVERY]

    def fit(texts: list[Any], labels: list[Any]) -> Any:
        return make_pipeline(
            TfidfVectorizer(token_pattern=r"\S+"), LogisticRegression(C=4, max_iter=500, random_state=0)
        ).fit(texts, labels)

    def show(name: str, model: Any, rows: int, seconds: float) -> None:
        found = advgym.attack("text/wordswap", "greedy", victim=model, samples=test, episodes=given.episodes)
        low, high = found.success_ci
        print(
            f"{name:<34} {rows:>6} rows {seconds:>6.1f} CPU s   clean {found.clean_accuracy:.1%}   robust "
            f"{found.robust_accuracy:.1%}   success {found.success_rate:.1%} [{low:.1%}, {high:.1%}]"
        )

    texts, labels = (list(column) for column in zip(*train, strict=True))
    start = time.process_time()
    show("as it is", fit(texts, labels), len(texts), time.process_time() - start)
    start = time.process_time()
    more = advgym.augment(train, task="text/wordswap")
    show("control: random versions", fit(more.inputs, more.labels), len(more), time.process_time() - start)
    start = time.process_time()
    model, added = advgym.harden(fit, train, agent="greedy", rounds=given.rounds, task="text/wordswap", wins=True)
    rows = len(texts) + sum(map(len, added))
    show(f"harden, {given.rounds} rounds of greedy", model, rows, time.process_time() - start)


if __name__ == "__main__":
    main()
