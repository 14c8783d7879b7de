"""Small text models over a word vocabulary of their own; each takes `TextInput` or a list of strings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.envs.text.inputs.slots import TextInput, as_text, remap_to
from advgym.envs.text.inputs.vocabulary import Vocabulary

PAD, UNKNOWN, WORDS = 0, 1, 2  # of a victim's own ids; its words start at 2


class WordModel(nn.Module):
    """A model over embedded words. Subclasses write `read(embedded (n, L, D), mask (n, L)) -> scores`.

    Args:
        vocabulary: the words it knows; any task's words are mapped to them, others to the unknown word.
        width: D of the embedding.
    """

    def __init__(self, vocabulary: Vocabulary, width: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(len(vocabulary) + WORDS, width, padding_idx=PAD)
        self._remaps: dict[tuple[str, torch.device], Tensor] = {}

    def remap(self, vocabulary: Vocabulary, device: torch.device) -> Tensor:
        """The victim's id of each word of another vocabulary, int64 (V + 1,); computed once per vocabulary."""
        key = (vocabulary.digest, device)
        if key not in self._remaps:
            if len(self._remaps) > 8:  # lists of strings bring a vocabulary each
                self._remaps.clear()
            table = remap_to(vocabulary, self.vocabulary, shift=WORDS, unknown=UNKNOWN, padding=PAD)
            self._remaps[key] = table.to(device)
        return self._remaps[key]

    def forward(self, x: TextInput | list[str]) -> Tensor:
        """Scores of each text."""
        text = as_text(x, self.vocabulary)
        device = self.embedding.weight.device
        text = text.to(device)
        embedded, mask = text.embed(self.embedding.weight, self.remap(text.vocabulary, device))
        if not mask.shape[1]:  # nothing but empty texts
            embedded, mask = embedded.new_zeros(len(text), 1, embedded.shape[2]), mask.new_zeros(len(text), 1)
        return self.read(embedded, mask)

    def read(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Scores from embedded words."""
        raise NotImplementedError


def mean_words(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over present positions, (n, D); zeros for an empty text."""
    part = mask.unsqueeze(2).to(values.dtype)
    return (values * part).sum(1) / part.sum(1).clamp_min(1)


class Bag(WordModel):
    """Mean of the words' embeddings, then an MLP (deep averaging network: Iyyer et al., 2015)."""

    def __init__(
        self, vocabulary: Vocabulary, classes: int, width: int = 24, hidden: int = 32, drop: float = 0.2
    ) -> None:
        super().__init__(vocabulary, width)
        self.drop = nn.Dropout(drop)
        self.first = nn.Linear(width, hidden)
        self.last = nn.Linear(hidden, classes)

    def read(self, embedded: Tensor, mask: Tensor) -> Tensor:
        pooled = mean_words(embedded, mask)
        return self.last(self.drop(F.gelu(self.first(self.drop(pooled)))))


class Convolution(WordModel):
    """A word CNN with max-pooling over time, beside the mean of the words (after Kim, 2014)."""

    def __init__(
        self, vocabulary: Vocabulary, classes: int, width: int = 64, filters: int = 48, drop: float = 0.5
    ) -> None:
        super().__init__(vocabulary, width)
        self.sizes = (1, 2, 3)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, filters, size, padding=size // 2) for size in self.sizes)
        self.drop = nn.Dropout(drop)
        self.last = nn.Linear(filters * len(self.sizes) + width, classes)

    def read(self, embedded: Tensor, mask: Tensor) -> Tensor:
        embedded = self.drop(embedded) * mask.unsqueeze(2)
        x = embedded.transpose(1, 2)
        length = x.shape[2]
        gone = ~mask.unsqueeze(1)
        parts = [F.relu(c(x)[..., :length]).masked_fill(gone, 0.0).amax(2) for c in self.convolutions]
        return self.last(self.drop(torch.cat([*parts, mean_words(embedded, mask)], 1)))


class Bert(WordModel):
    """A small BERT from scratch: the architecture of transformers, words of our own, mean pooling."""

    def __init__(
        self, vocabulary: Vocabulary, classes: int, width: int = 32, layers: int = 2, heads: int = 2,
        longest: int = 80, drop: float = 0.1,
    ) -> None:  # fmt: skip
        from transformers import BertConfig, BertModel

        super().__init__(vocabulary, width)
        self.longest = longest
        # The library's own word table is not used: `embed` is where words become vectors.
        config = BertConfig(
            vocab_size=4, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=2 * width, max_position_embeddings=longest + 1, type_vocab_size=1, pad_token_id=0,
            hidden_dropout_prob=drop, attention_probs_dropout_prob=drop,
        )  # fmt: skip
        self.body = BertModel(config, add_pooling_layer=False)
        self.start = nn.Parameter(torch.zeros(width))
        self.drop = nn.Dropout(drop)
        self.last = nn.Linear(width, classes)

    def read(self, embedded: Tensor, mask: Tensor) -> Tensor:
        # Words beyond the longest text are not read; a start vector keeps empty texts from an empty attention.
        embedded, mask = embedded[:, : self.longest], mask[:, : self.longest]
        start = self.start.expand(len(embedded), 1, -1)
        mask = torch.cat([mask.new_ones(len(mask), 1), mask], 1)
        hidden = self.body(
            inputs_embeds=torch.cat([start, embedded], 1), attention_mask=mask.to(torch.int64)
        ).last_hidden_state
        return self.last(self.drop(mean_words(hidden, mask)))
