"""Latent defenders of modular robust redundancy: copies of the victim whose features gather in class Gaussians."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym import AdvgymError
from advgym.agents.defenses.learning import CHUNK
from advgym.core.rng import bits
from advgym.lib.fit import descend
from advgym.lib.weights import load_or_train, weights_hash

RANK = 64  # principal axes of the features that the Gaussians live on
SHRINK = 0.05  # of a covariance towards its mean variance


class Latent(nn.Module):
    """A copy of a network with a checkpoint: its features there, and a Gaussian of them for each class.

    Features have length 1 and are looked at on their principal axes, at most `RANK`.

    Args:
        net: the victim's module, which is copied.
        layer: of those with weights, whose input is looked at; -1 for the last.
        x: some inputs, whose shape is all that counts; classes: how many.
    """

    axes: Tensor
    mean: Tensor
    white: Tensor

    def __init__(self, net: nn.Module, layer: int, x: Tensor, classes: int) -> None:
        super().__init__()
        self.net, self.layer = copy.deepcopy(net).requires_grad_(False), layer
        with torch.no_grad():
            d = self.features(x[:2])[0].shape[1]
        rank = min(RANK, d)
        self.centres = nn.Parameter(torch.zeros(classes, d))
        for name, shape in {"axes": (d, rank), "mean": (classes, rank), "white": (classes, rank, rank)}.items():
            self.register_buffer(name, torch.zeros(*shape))

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(features (n, d) of length 1, scores (n, classes)).

        Raises:
            AdvgymError: where the network has no such layer, or its input has no row for each image.
        """
        layers = [m for m in self.net.modules() if any(True for _ in m.parameters(recurse=False))]
        if not -len(layers) <= self.layer < len(layers):
            raise AdvgymError(
                f"layer {self.layer} offers no features: the victim has {len(layers)} layers, -1 its last"
            )
        seen: list[Tensor] = []
        hook = layers[self.layer].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        try:
            scores = self.net(x)
        finally:
            hook.remove()
        if not seen or len(seen[-1]) != len(x) or not seen[-1].is_floating_point():
            raise AdvgymError(f"layer {self.layer} of the victim offers no features with a row for each input")
        return F.normalize(seen[-1].flatten(1), dim=1), scores

    def shape(self, f: Tensor, y: Tensor) -> Tensor:
        """What the source adds to the loss: towards the own centre, away from others, centres of length 1, (n,)."""
        apart = (f.unsqueeze(1) - self.centres).square().sum(2)
        own = apart.gather(1, y.unsqueeze(1)).squeeze(1)
        others = (apart.sum(1) - own) / max(apart.shape[1] - 1, 1)
        return own - others + (self.centres.norm(dim=1) - 1).square().mean()

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor) -> None:
        """Set axes and Gaussians from inputs and their classes; a class of fewer than two inputs has that of all."""
        f = torch.cat([self.features(part)[0] for part in x.split(CHUNK)])
        off = f - f.mean(0)
        vectors = torch.linalg.eigh(off.T @ off).eigenvectors.flip(1)
        self.axes.copy_(vectors[:, : self.axes.shape[1]])
        g = f @ self.axes
        eye = torch.eye(g.shape[1], device=x.device)
        for c in range(len(self.mean)):
            part = g[y == c] if int((y == c).sum()) > 1 else g
            self.mean[c] = part.mean(0)
            cov = torch.cov(part.T, correction=0).reshape(eye.shape)
            level = cov.diagonal().mean().clamp_min(1e-8)
            self.white[c] = torch.linalg.inv(torch.linalg.cholesky((1 - SHRINK) * cov + SHRINK * level * eye))

    def distances(self, x: Tensor) -> Tensor:
        """Squared Mahalanobis distance to every class, (n, classes): -2 log density but for a constant of the class."""
        g = self.features(x)[0] @ self.axes
        off = g.unsqueeze(1) - self.mean
        return torch.einsum("ncr,cdr->ncd", off, self.white).square().sum(2)

    def strangeness(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance to class y over that to the nearest other class, (n,): below 1 where y is the likeliest."""
        every, own = self.distances(x), y.unsqueeze(1)
        others = every.scatter(1, own, torch.inf).amin(1)
        return every.gather(1, own).squeeze(1) / others.clamp_min(1e-6)


def latent(
    net: nn.Module, x: Tensor, y: Tensor, classes: int, before: Latent | None, *, layer: int, gamma: float, eps: float,
    epochs: int, lr: float, batch: int, seed: int, recipe: dict[str, Any],
) -> Latent:  # fmt: skip
    """A trained latent defender, kept in the cache: the victim's loss on (x, y) and `gamma` times that of the shape.

    Args:
        before: the module trained last; this one learns on what is strangest to it, x moved by up to `eps` along the
            sign of the gradient of its loss, which makes the two mistake different inputs.
    """
    recipe = {**recipe, "net": weights_hash(net), "layer": layer, "gamma": gamma, "eps": eps, "epochs": epochs,
              "lr": lr, "batch": batch, "seed": seed, "before": before and weights_hash(before)}  # fmt: skip

    def train(module: Latent) -> dict[str, Any]:
        module.net.requires_grad_(True)
        with torch.no_grad():
            f = torch.cat([module.features(part)[0] for part in x.split(CHUNK)])
            for c in range(classes):
                module.centres[c] = F.normalize((f[y == c] if bool((y == c).any()) else f).mean(0), dim=0)
        steps = -(-len(x) // batch) * epochs
        optimiser = torch.optim.Adam(module.parameters(), lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: 1 - t / (steps + 1))

        def loss(index: Tensor) -> Tensor:
            seen = x[index] if before is None else strange(before, x[index], y[index], gamma, eps)
            return _loss(module, seen, y[index], gamma).mean()

        order = (bits(seed, torch.arange(len(x)), (), 1 + e).argsort().split(batch) for e in range(epochs))
        descend(module, loss, order, optimiser, schedule=schedule, clip=5.0)
        module.requires_grad_(False)
        module.fit(x, y)
        with torch.no_grad():
            right = torch.cat([module.features(part)[1].argmax(1) for part in x[:1000].split(CHUNK)]) == y[:1000]
        return {"agrees": round(float(right.float().mean()), 4)}

    module, _ = load_or_train("mrr-latent", lambda: Latent(net, layer, x, classes), train, recipe=recipe)
    return module


def _loss(module: Latent, x: Tensor, y: Tensor, gamma: float) -> Tensor:
    f, scores = module.features(x)
    return F.cross_entropy(scores, y, reduction="none") + gamma * module.shape(f, y)


def strange(module: Latent, x: Tensor, y: Tensor, gamma: float, eps: float) -> Tensor:
    """X moved by `eps` along the sign of the gradient of a module's loss, within [0, 1]."""
    at = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(_loss(module, at, y, gamma).sum(), at)
    return (x + eps * g.sign()).clamp(0, 1)
