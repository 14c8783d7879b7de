"""Activation clustering of training rows (Chen et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import Victim, register_defense
from advgym.agents.defenses.screening import screening
from advgym.lib.settings import COUNT, Range

ROUNDS = 50


@register_defense(
    "activation-clustering", domains=("image", "speech"),
    allowed={"size": Range(0, 0.5), "parts": COUNT},
)  # fmt: skip
def defend(victim: Victim, task, *, size: float = 0.35, parts: int = 10) -> Victim:
    """Features of each class fall into two clusters; the smaller one is dropped where it is unusually small.

    Features are reduced to their first `parts` principal components, scaled to one deviation (the paper: independent
    components), and split by k-means; a cluster of less than `size` of its class is poison. How suspect a row is: how
    much nearer it is to the smaller cluster's centre, times how small that is. The victim then learns again.
    """

    def screen(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        found = torch.zeros(len(labels), device=labels.device)
        dropped = torch.zeros_like(labels, dtype=torch.bool)
        for c in range(classes):
            of = (labels == c).nonzero().flatten()
            if len(of) < 4:
                continue
            lean, share = clusters(reduced(features[of], parts))
            found[of] = lean * (1 - share)
            dropped[of] = (lean > 0) & (share < size)
        return found, dropped

    return screening(victim, task, screen, f"activation-clustering({size:g})")


def reduced(features: Tensor, parts: int) -> Tensor:
    """The first principal components of features (n, d), each of deviation 1."""
    centred = (features - features.mean(0)).double()
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    keep = s[:parts] > 1e-6 * s[0]
    return u[:, : len(keep)][:, keep] * len(features) ** 0.5


def clusters(z: Tensor) -> tuple[Tensor, float]:
    """2-means from the two ends of the widest axis: (how far each row leans to the smaller one (n,), its share).

    The lean is in (-1, 1): the difference of both distances by their sum, above 0 in the smaller cluster.
    """
    best: tuple[float, Tensor, Tensor] | None = None
    for axis in range(z.shape[1]):  # a start along each axis; the tightest split counts
        centres = z[torch.stack([z[:, axis].argmin(), z[:, axis].argmax()])]
        for _ in range(ROUNDS):
            mine = torch.cdist(z, centres).argmin(1)
            new = torch.stack([z[mine == k].mean(0) if bool((mine == k).any()) else centres[k] for k in (0, 1)])
            if torch.equal(new, centres):
                break
            centres = new
        apart = torch.cdist(z, centres)
        total = float(apart.amin(1).square().sum())
        if best is None or total < best[0]:
            best = total, apart, apart.argmin(1)
    if best is None:
        return torch.zeros(len(z), device=z.device), 0.5
    _, apart, mine = best
    small = int((mine == 1).sum() < (mine == 0).sum())
    near, far = apart[:, small], apart[:, 1 - small]
    return ((far - near) / (far + near).clamp_min(1e-12)).float(), float((mine == small).double().mean())
