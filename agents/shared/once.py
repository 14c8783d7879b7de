"""Asking once: what a lane has asked in its episode, by the content of the perturbation, and what was answered.

A victim that draws at random (`env.keyed`) answers the same input anew each time: nothing is known of it for good.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import hash_rows
from advgym.core.rng import mix

END = torch.iinfo(torch.int64).max  # the name of nothing
SMALL = 1 << 12  # Fields beyond that many entries do not come by the same input twice: their inputs are not compared
WIDE = 64  # numbers of a row of an observation that are kept
PATIENCE = 64  # steps without anything new after which a lane has been through


def wide(values: Tensor, like: Tensor) -> Tensor:
    """(n,) values with as many axes as `like`."""
    return values.view(*values.shape, *[1] * (like.dim() - values.dim()))


def names(env, p: Tensor) -> Tensor:
    """One number for each perturbation (lanes, P, *shape), int64 (lanes, P): equal where the victim sees the same.

    Of Edits the set counts, of Fields the canonical input; `END` for the clean sample, which is free.
    """
    lanes, many = p.shape[:2]
    if env.kind == "edits":
        site, choice, some = p[..., 0], p[..., 1], p[..., 0] >= 0
        if env.table.key == "pair":
            site, choice = torch.minimum(site, choice), torch.maximum(site, choice)
        cell = mix((site * max(env.table.choices, env.table.sites) + choice + 1) * 2 + 1)
        return torch.where(some.any(2), mix(torch.where(some, cell, 0).sum(2)) >> 1, END)
    seen = env.threat.apply(p.detach())
    if not isinstance(seen, Tensor) or len(seen) % (lanes * many):
        seen = p.detach()
    bits = (seen.reshape(lanes * many, -1).to(torch.float32) + 0.0).view(torch.int32).long()
    clean = (p == 0).flatten(2).all(2)
    return torch.where(clean, END, mix(hash_rows(bits)).view(lanes, many) >> 1)


def repeated(key: Tensor) -> Tensor:
    """Bool (lanes, Q): an equal name stands earlier in the row, or there is none at all (`END`)."""
    order = key.argsort(dim=1, stable=True)
    ordered = key.gather(1, order)
    again = ordered == END
    again[:, 1:] |= ordered[:, 1:] == ordered[:, :-1]
    return torch.zeros_like(again).scatter(1, order, again)


class Known:
    """Names that each lane has had answers to, ascending, and the answers: tensors (lanes, N, ...) by name.

    Without `keeps` nothing is entered.
    """

    def __init__(self, lanes: int, device: torch.device, *, keeps: bool = True) -> None:
        self.keeps = keeps
        self.keys = torch.full((lanes, 1), END, device=device)
        self.answers: dict[str, Tensor] = {}

    def find(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """(which of the names (lanes, Q) are known, their places)."""
        at = torch.searchsorted(self.keys, key.contiguous()).clamp_max(self.keys.shape[1] - 1)
        return (self.keys.gather(1, at) == key) & (key < END), at

    def answer(self, name: str, at: Tensor) -> Tensor:
        """The answers at places (lanes, Q)."""
        return self.answers[name][torch.arange(len(at), device=at.device).unsqueeze(1), at]

    def add(self, key: Tensor, some: Tensor, **answers: Tensor) -> None:
        """Enter the names (lanes, Q) where `some`; answers are (lanes, Q, ...)."""
        if not self.keeps:
            return
        keys, order = torch.cat([self.keys, torch.where(some, key, END)], 1).sort(dim=1, stable=True)
        most = int((keys < END).sum(1).max()) + 1
        self.keys, order = keys[:, :most].contiguous(), order[:, :most]
        lane = torch.arange(len(order), device=order.device).unsqueeze(1)
        for name, new in answers.items():
            old = self.answers.get(name)
            if old is None:
                old = new.new_zeros(len(new), keys.shape[1] - new.shape[1], *new.shape[2:])
            self.answers[name] = torch.cat([old, new], 1)[lane, order]


def first_new(known: Known, key: Tensor, able: Tensor) -> tuple[Tensor, Tensor]:
    """Of proposals named (lanes, Q) the first that is able and not known: (its place, whether there is one)."""
    new = able & (key < END) & ~known.find(key)[0]
    return new.to(torch.int8).argmax(1), new.any(1)


class Once:
    """An environment that answers what a lane has asked already from memory, for nothing.

    A repeat goes to the environment as the null perturbation. A lane that has proposed nothing new for `PATIENCE`
    steps in a row has been through: it asks no more, and where all have, all is done. Gradients and `rank` ask anew.
    """

    def __init__(self, env) -> None:
        self.inner, lanes = env, len(env.threat.reach)
        self.known = Known(lanes, env.threat.reach.device)
        self.idle = torch.zeros(lanes, dtype=torch.int64, device=env.threat.reach.device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def live(self) -> Tensor:
        """Bool (lanes,): those that run and may still find something new."""
        return self.inner.live & (self.idle < PATIENCE)

    @property
    def done(self) -> bool:
        """No lane is left."""
        return not bool(self.live.any())

    def step(self, p: Tensor) -> tuple:
        """As of the environment; rows that were answered from memory are `evaluated`."""
        several = self.inner.proposals is not None
        rows = p if several else p.unsqueeze(1)
        key = torch.where(self.live.unsqueeze(1), names(self.inner, rows), END)
        new = ~repeated(key) & ~self.known.find(key)[0]
        send = torch.where(wide(new, rows), rows, self.inner.threat.null().unsqueeze(1))
        obs, *rest = self.inner.step(send if several else send[:, 0])
        told = {k: v if several else v.unsqueeze(1) for k, v in obs.items() if self._of_rows(k, v, rows)}
        told = {k: v for k, v in told.items() if v[0, 0].numel() <= WIDE}
        fresh = new & told["evaluated"]
        self.known.add(key, fresh, **{k: v.detach() for k, v in told.items()})
        known, at = self.known.find(key)
        old = known & ~fresh
        for name, value in told.items():
            value = torch.where(wide(old, value), self.known.answer(name, at), value)
            obs[name] = value if several else value[:, 0]
        self.idle = torch.where(new.any(1) | ~self.inner.live, 0, self.idle + 1)
        return obs, *rest

    def _of_rows(self, name: str, value: Tensor, rows: Tensor) -> bool:
        answers = ("evaluated", "valid", "distance", "output", "success", "scores", "objective", "surrogate", "risk")
        return name in answers and (self.inner.proposals is None or value.shape[:2] == rows.shape[:2])


def once(env):
    """`Once` where proposals repeat (Edits) and an answer holds; else the environment as it is."""
    return Once(env) if env.kind == "edits" and not env.keyed else env


def known_of(env) -> Known:
    """What the lanes of an environment have asked: nothing yet."""
    return Known(len(env.threat.reach), env.threat.reach.device, keeps=not env.keyed)
