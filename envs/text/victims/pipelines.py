"""Scikit-learn pipelines as victims, and TF-IDF with logistic regression on Movie Reviews, evaluated on word ids."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.own.victims import TINY, estimator_scores
from advgym.core.victim import Victim
from advgym.envs.text.data import corpora, labels
from advgym.envs.text.inputs.slots import TextInput, as_text, remap_to
from advgym.envs.text.inputs.text_pairs import unpaired
from advgym.envs.text.inputs.vocabulary import Vocabulary, pad_rows
from advgym.envs.text.victims.recipes import SHIPPED
from advgym.lib.fit import accuracy
from advgym.lib.weights import load_or_train


# -- any pipeline --------------------------------------------------------------------------------------------
def from_sklearn(model: Any, *, name: str = "own") -> Victim:
    """A victim of a fitted classifier or pipeline of list[str].

    Scores are log-probabilities where it has `predict_proba`, else its decision function; a binary one d becomes
    (-d / 2, d / 2).

    Raises:
        VictimError: it has neither.
    """
    if not hasattr(model, "predict_proba") and not hasattr(model, "decision_function"):
        estimator_scores(model, [])  # says so

    def scores(x: Any) -> Tensor:
        return estimator_scores(model, unpaired(x.strings()) if isinstance(x, TextInput) else list(x))

    found = labels.class_names(Victim(model))
    return Victim(scores, name=name, access="scores", card={} if found is None else {"classes": found})


# -- TF-IDF on word ids --------------------------------------------------------------------------------------
class TfIdf(nn.Module):
    r"""Logistic regression on L2-normalised TF-IDF of words: scores (n, classes), differentiable in relaxed words.

    What `TfidfVectorizer(token_pattern=r"\S+")` and `LogisticRegression` give; words are those between spaces, lower
    case. A text is a look-up of two numbers per word, with words that occur twice counted twice in the norm.

    Args:
        vocabulary: the words it knows, lower case.
        classes: of the answer.
    """

    def __init__(self, vocabulary: Vocabulary, classes: int = 2) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.idf = nn.Parameter(torch.zeros(len(vocabulary)), requires_grad=False)
        self.weight = nn.Parameter(torch.zeros(len(vocabulary), classes))
        self.bias = nn.Parameter(torch.zeros(classes))
        self._remaps: dict[tuple[str, torch.device], Tensor] = {}

    def remap(self, vocabulary: Vocabulary, device: torch.device) -> Tensor:
        """The index of each word of another vocabulary, int64 (V + 1,); unknown words and none are the last."""
        key = (vocabulary.digest, device)
        if key not in self._remaps:
            if len(self._remaps) > 8:
                self._remaps.clear()
            none = len(self.vocabulary)
            lower = [w.lower() for w in vocabulary.words]
            if lower == list(vocabulary.words):
                table = remap_to(vocabulary, self.vocabulary, shift=0, unknown=none, padding=none)
            else:
                table = torch.tensor([*(self.vocabulary.index.get(w, none) for w in lower), none])
            self._remaps[key] = table.to(device)
        return self._remaps[key]

    def forward(self, x: TextInput | list[str]) -> Tensor:
        """Log-odds of each class."""
        text = as_text(x, self.vocabulary)
        device = self.weight.device
        index = self.remap(text.vocabulary, device)[text.ids.to(device)]
        zero = self.idf.new_zeros(1)
        idf = torch.cat([self.idf, zero])
        pull = torch.cat([self.weight * self.idf.unsqueeze(1), zero.expand(1, len(self.bias))])
        if text.swap is None or text.weight is None:
            total, square = self._plain(index, idf, pull)
        else:
            swap = self.remap(text.vocabulary, device)[text.swap.to(device)]
            total, square = self._relaxed(index, swap, text.weight.to(device), idf, pull)
        return total / square.clamp_min(TINY).sqrt().unsqueeze(1) + self.bias

    @staticmethod
    def _plain(index: Tensor, idf: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """(sum of idf * weight, squared norm) of words int64 (n, W)."""
        total = torch.stack([column[index].sum(1) for column in pull.t().contiguous()], 1)
        ordered = index.sort(1).values
        each = idf[ordered].square_()
        square = each.sum(1)
        # A word that occurs c times has c^2 = c + 2 * (pairs of it): pairs stand 1, 2 ... apart in order.
        for apart in range(1, index.shape[1]):
            same = ordered[:, apart:] == ordered[:, :-apart]
            pair = torch.where(same, each[:, apart:], 0.0).sum(1)
            if not bool(pair.any()):
                break
            square = square + 2 * pair
        return total, square

    @staticmethod
    def _relaxed(index: Tensor, swap: Tensor, weight: Tensor, idf: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """The same of expected counts: each slot's own word and those mixed in, by their parts."""
        n, size = len(index), len(idf)
        part = torch.cat([1 - weight.sum(2, keepdim=True), weight], 2).flatten(1)
        word = torch.cat([index.unsqueeze(2), swap], 2).flatten(1)
        cell = (torch.arange(n, device=index.device).unsqueeze(1) * size + word).flatten()
        known, where = cell.unique(return_inverse=True)
        count = part.new_zeros(len(known)).index_add(0, where, part.flatten())
        row, of = known // size, known % size
        total = part.new_zeros(n, pull.shape[1]).index_add(0, row, count.unsqueeze(1) * pull[of])
        return total, part.new_zeros(n).index_add(0, row, (count * idf[of]).square())


def tfidf(name: str, *, dataset: str = "mr", least: int = 2, strength: float = 4.0, seed: int = 0) -> Victim:
    """TF-IDF with logistic regression, fitted by scikit-learn and kept as two arrays.

    Args:
        name: of the victim and its weights.
        dataset: "mr", or a local folder like it.
        least: training texts that a word must stand in.
        strength: C of LogisticRegression.
        seed: of its solver.
    """
    found = corpora.movie_reviews(dataset)
    counts = Counter(w for text in found.texts["train"] for w in {t.lower() for t in text})
    vocabulary = Vocabulary(sorted(w for w, n in counts.items() if n >= least))

    def train(module: nn.Module) -> dict[str, Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        assert isinstance(module, TfIdf)
        texts = {split: [" ".join(t) for t in part] for split, part in found.texts.items()}
        vectors = TfidfVectorizer(token_pattern=r"\S+", vocabulary=vocabulary.index)
        features = vectors.fit_transform(texts["train"])
        model = LogisticRegression(C=strength, max_iter=1000, random_state=seed).fit(features, found.labels["train"])
        with torch.no_grad():
            module.idf.copy_(torch.from_numpy(vectors.idf_))
            module.weight[:, 1].copy_(torch.from_numpy(model.coef_[0]))
            module.bias[1] = float(model.intercept_[0])
        own = Vocabulary(sorted({w for t in found.texts["test"] for w in t}))
        x = TextInput(pad_rows([own.encode(t) for t in found.texts["test"]], found.longest), own)
        return {"clean_accuracy": accuracy(module, x, torch.tensor(found.labels["test"])), "words": len(vocabulary)}

    recipe = {"model": "tfidf", "corpus": dataset, "digest": corpora.digest_of(found),
              "vocabulary": vocabulary.digest[:12], "least": least, "strength": strength, "seed": seed}  # fmt: skip
    module, card = load_or_train(
        name, lambda: TfIdf(vocabulary), train, recipe=recipe, shipped=SHIPPED / f"{name}.safetensors"
    )
    return Victim(module, name=name, access="gradients", card=card)
