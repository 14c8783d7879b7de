"""Sparse coding: orthogonal matching pursuit (Pati et al. 1993) over batches, and dictionaries learnt with it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.core.rng import bits
from advgym.lib.weights import load_or_train

ROUNDS = 8  # of coding and least squares; later ones change little
RIDGE = 1e-5
SIGNALS = 6000  # squares of a class that its dictionary is learnt from


def patches(x: Tensor, side: int) -> Tensor:
    """Images (n, C, H, W) cut into squares without overlap, borders filled with 0: (n, squares, C side side)."""
    down, right = -x.shape[2] % side, -x.shape[3] % side
    return F.unfold(F.pad(x, (0, right, 0, down)), side, stride=side).transpose(1, 2)


def omp(y: Tensor, atoms: Tensor, which: Tensor, sparsity: int) -> tuple[Tensor, Tensor]:
    """Which atoms make up each signal and how much of each: int64 and float32 (m, sparsity).

    Each round adds the atom that correlates most with what is left, then fits all chosen ones anew.

    Args:
        y: signals (m, d).
        atoms: dictionaries (K, d, a) of unit columns; which: int64 (m,), the one of each signal.
    """
    support = torch.zeros(len(y), 0, dtype=torch.int64, device=y.device)
    weights = torch.zeros(len(y), 0, device=y.device, dtype=y.dtype)
    left = y
    ordered = which.argsort(stable=True)  # a product for each dictionary, not a dictionary for each signal
    counts = torch.bincount(which, minlength=len(atoms)).tolist()
    back = ordered.argsort()
    eye = torch.eye(sparsity, device=y.device, dtype=y.dtype)
    for k in range(sparsity):
        parts = left[ordered].split(counts)
        like = torch.cat([part @ d for part, d in zip(parts, atoms, strict=True)])[back].abs()
        best = like.scatter(1, support, -1.0).argmax(1, keepdim=True)
        support = torch.cat([support, best], 1)
        chosen = columns(atoms, which, support)
        gram = chosen @ chosen.transpose(1, 2) + RIDGE * eye[: k + 1, : k + 1]
        weights = torch.linalg.solve(gram, chosen @ y.unsqueeze(2)).squeeze(2)
        left = y - (weights.unsqueeze(1) @ chosen).squeeze(1)
    return support, weights


def columns(atoms: Tensor, which: Tensor, support: Tensor) -> Tensor:
    """The chosen atoms of each signal, (m, k, d)."""
    return atoms.transpose(1, 2)[which.unsqueeze(1), support]


def learn(y: Tensor, size: int, sparsity: int, seed: int) -> Tensor:
    """A dictionary (d, size) of unit columns that codes signals y (m, d): the method of optimal directions.

    Engan, Aase and Husoy (1999): codes by `omp`, then all atoms by least squares; atoms that no signal uses become
    the signals coded worst. It begins with signals drawn by the seed.
    """
    alive = y[y.norm(dim=1) > 1e-3]
    if not len(alive):
        alive = torch.ones_like(y[:1])
    order = bits(seed, torch.arange(len(alive), device=y.device)).argsort()
    atoms = unit(alive[order[torch.arange(size, device=y.device) % len(alive)]].T)
    none = torch.zeros(len(alive), dtype=torch.int64, device=y.device)
    for _ in range(ROUNDS):
        support, weights = omp(alive, atoms.unsqueeze(0), none, sparsity)
        codes = torch.zeros(len(alive), size, device=y.device).scatter_add(1, support, weights)
        gram = codes.T @ codes + 1e-3 * torch.eye(size, device=y.device)
        atoms = torch.linalg.solve(gram, codes.T @ alive).T
        unused = (codes != 0).sum(0) < 2
        worst = (alive - codes @ atoms.T).norm(dim=1).argsort(descending=True)
        fresh = alive[worst[torch.arange(size, device=y.device) % len(alive)]].T
        atoms = unit(torch.where(unused, fresh, atoms))
    return atoms


def unit(columns: Tensor) -> Tensor:
    """Columns of length 1."""
    return columns / columns.norm(dim=0).clamp_min(1e-8)


class Dictionaries(nn.Module):
    """A dictionary of squares for each class."""

    atoms: Tensor

    def __init__(self, classes: int, channels: int, side: int, atoms: int, sparsity: int) -> None:
        super().__init__()
        self.side, self.sparsity = side, sparsity
        self.register_buffer("atoms", torch.zeros(classes, channels * side * side, atoms))

    def strangeness(self, x: Tensor, y: Tensor) -> Tensor:
        """Squared error of images coded with the dictionary of class y, (n,).

        Its gradient is 2 (x - D a): at the best code a small change of the code changes nothing.
        """
        squares = patches(x, self.side)
        signals, which = squares.flatten(0, 1), y.repeat_interleave(squares.shape[1])
        with torch.no_grad():
            support, weights = omp(signals, self.atoms, which, self.sparsity)
            coded = (weights.unsqueeze(1) @ columns(self.atoms, which, support)).squeeze(1)
        return (signals - coded).square().sum(1).view(len(x), -1).sum(1)


def dictionaries(
    x: Tensor, y: Tensor, classes: int, sizes: tuple[int, int, int], seed: int, recipe: dict[str, Any]
) -> Dictionaries:
    """Learnt from images x of classes y, and kept in the cache; a class without images has the dictionary of all."""
    side, atoms, sparsity = sizes

    def train(module: Dictionaries) -> dict[str, Any]:
        squares = patches(x, side)
        for c in range(classes):
            some = squares[y == c] if bool((y == c).any()) else squares
            module.atoms[c] = learn(some.flatten(0, 1)[:SIGNALS], atoms, sparsity, seed)
        with torch.no_grad():
            left = module.strangeness(x[:500], y[:500]).mean() / x[:500].square().flatten(1).sum(1).mean()
        return {"left_over": round(float(left), 5)}

    recipe = {**recipe, "sizes": sizes, "seed": seed, "signals": SIGNALS}
    module, _ = load_or_train("mrr-dictionaries", lambda: Dictionaries(classes, x.shape[1], *sizes), train,
                              recipe=recipe)  # fmt: skip
    return module
