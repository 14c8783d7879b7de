"""Own samples, a victim and a linear model for the tests of text tasks."""

import torch
from torch import nn

from advgym.core.task import make_task

SAMPLES = [
    ("the plot of this film is awful", 0),
    ("a fine film", 1),
    ("", 1),
    ("dull", 0),
    ("so fine a story , really", 1),
]
GROUPS = {
    "film": ["movie", "show"],
    "fine": ["good", "nice"],
    "awful": ["terrible"],
    "plot": ["story"],
    "dull": ["boring"],
}
NEW = ("charswap", "homoglyph", "insert", "reduction")


def victim(texts):
    return [[1.0 * ("awful" in t) + ("dull" in t), 0.5] for t in texts]


class Linear(nn.Module):
    """Sums linear scores of words: first-order gains are exact. Words it has not seen are zero."""

    def __init__(self, vocabulary, bias=0.0):
        super().__init__()
        g = torch.Generator().manual_seed(5)
        table = torch.randn(len(vocabulary) + 1, 4, generator=g)
        table[-1] = 0
        self.table, self.out = nn.Parameter(table), torch.randn(4, 2, generator=g)
        self.bias = torch.tensor([bias, 0.0])

    def forward(self, x):
        embedded, mask = x.embed(self.table, torch.arange(len(self.table)))
        return (embedded * mask.unsqueeze(2)).sum(1) @ self.out + self.bias


def own(name, **options):
    given = {"candidates": GROUPS, "stopwords": False, "antonyms": False} if name in ("wordswap", "insert") else {}
    return make_task(f"text/{name}", victim=victim, samples=SAMPLES, **{**given, **options})


def batch_of(task):
    return task.samples("test", list(range(len(SAMPLES))))


def all_real(b, lane):
    """Every legal single edit of a lane, probes aside."""
    rows = torch.tensor([lane])
    return [
        (s, c)
        for s in range(b.sites)
        for c in range(b.choices)
        if bool(b.legal(torch.tensor([[s]]), torch.tensor([[c]]), rows)) and not bool(b.asks_only(torch.tensor(c)))
    ]
