"""A small captioner: patches of the image are read and added up, a recurrent network writes words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from advgym.core.kinds.sequences import END

ENDED = -30.0  # logit of every word after the end, where END has 0


class Captioner(nn.Module):
    """Scores (n, T, V) of its own greedy output, differentiable in x (n, C, H, W).

    The output is written without a graph, then read once more as teacher.

    Args:
        shape: (C, H, W).
        tokens: V, END among them; length: T.
        patch: side of the patches; width: features of one; hidden: of the recurrent network.
    """

    def __init__(
        self, shape: Sequence[int], tokens: int, length: int, patch: int = 8, width: int = 96, hidden: int = 64
    ) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(shape[0], width, patch, stride=patch), nn.ReLU())
        self.gather = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.Tanh())
        self.embed = nn.Embedding(tokens, 24)
        self.cell = nn.GRUCell(24 + hidden, hidden)
        self.write = nn.Linear(hidden, tokens)
        self.length = length

    def read(self, x: Tensor) -> Tensor:
        """What is seen, (n, hidden): a sum over patches, so that what lies where does not matter and counts add up."""
        seen: Tensor = self.gather(self.look((x - 0.3) * 3).sum((2, 3)) / 2)
        return seen

    def teach(self, memory: Tensor, said: Tensor) -> Tensor:
        """Scores (n, T, V) where the words before each position are those of `said` (n, T)."""
        state, out = memory, []
        word = torch.full_like(said[:, 0], END)
        for t in range(self.length):
            state = self.cell(torch.cat([self.embed(word), memory], 1), state)
            out.append(self.write(state))
            word = said[:, t]
        return torch.stack(out, 1)

    @torch.no_grad()
    def greedy(self, memory: Tensor) -> Tensor:
        """Tokens (n, T), END from the end on."""
        state, out = memory, []
        word = torch.full((len(memory),), END, dtype=torch.int64, device=memory.device)
        over = torch.zeros_like(word, dtype=torch.bool)
        for _ in range(self.length):
            state = self.cell(torch.cat([self.embed(word), memory], 1), state)
            word = torch.where(over, END, self.write(state).argmax(1))
            over = over | (word == END)
            out.append(word)
        return torch.stack(out, 1)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.read(x)
        said = self.greedy(memory.detach())
        return sealed(self.teach(memory, said), said)


def sealed(scores: Tensor, said: Tensor) -> Tensor:
    """Scores (n, T, V) with nothing but END after the first END of `said` (n, T), and at the last place."""
    ended = (said == END).cumsum(1) > 0
    after = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], 1)
    after[:, -1] = True
    closed = torch.full_like(scores[0, 0], ENDED)
    closed[END] = 0.0
    return torch.where(after.unsqueeze(2), closed, scores)
