"""Consistency of channels: what says the same twice is read twice, and what disagrees is told, or repaired."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym import AdvgymError, Victim, register_defense
from advgym.agents.defenses.detect.magnet import divergence
from advgym.agents.defenses.detectors import Risk, Statistics, watched
from advgym.agents.defenses.learning import clean_inputs
from advgym.agents.defenses.wrapping import asked
from advgym.agents.shared.own_network import network, trained
from advgym.core.kinds.parts import split
from advgym.lib.content import digest
from advgym.lib.settings import COUNT, SHARE
from advgym.lib.weights import load_or_train


@register_defense("consistency", domains=("fusion",), allowed={"rate": SHARE, "samples": COUNT, "epochs": COUNT})
def defend(
    victim: Victim, task, *, rate: float = 0.05, samples: int = 1000, epochs: int = 10, repair: bool = False,
    adaptive: bool = True, seed: int = 0,
) -> Victim:  # fmt: skip
    """A reader for each channel alone, and the divergence of their answers as the risk; .5 is the threshold.

    Readers learn on clean samples of the split "train", and `rate` of them lie beyond the threshold. With `repair` the
    victim is asked again about a pair that disagrees, whose stranger channel (by the distance of the reader's features
    from what is usual in its class) is made anew from the other: what is typical of the class that is read there.
    `adaptive`: the gradient is that of everything, and down the risk where it is near the threshold.
    """
    shapes = [tuple(s) for s in (task.context or {}).get("parts", {}).values()]
    if len(shapes) != 2:
        raise AdvgymError(f"{task.name} offers no two channels, which consistency compares")
    x = clean_inputs(task, samples, seed, single=True)
    with torch.no_grad():
        y = asked(victim, x, torch.arange(len(x))).argmax(1)
    classes = task.goal.outputs
    readers = nn.ModuleList(
        reader(part, y, classes, seed, epochs, f"consistency-{i}") for i, part in enumerate(split(x, shapes))
    )
    apart = Disagreement(victim, readers, shapes)
    risk = Risk(apart, x, rate)
    if repair:
        fixed = Repaired(victim, readers, shapes, risk, x, y, classes)
        return victim.like(fixed, name=f"{victim.name}+consistency({rate:g},repair)")
    return watched(victim, risk, f"consistency({rate:g})", adaptive=adaptive)


def reader(x: Tensor, y: Tensor, classes: int, seed: int, epochs: int, name: str) -> nn.Module:
    """A network of one channel, trained once and kept in the cache."""

    def build() -> nn.Module:
        net = network(tuple(x.shape[1:]), classes)
        net(x[:1])
        return net

    def learn(module: nn.Module) -> dict[str, object]:
        module.load_state_dict(trained(x, y, classes, seed, epochs).state_dict())
        with torch.no_grad():
            return {"training_accuracy": float((module(x).argmax(1) == y).double().mean())}

    recipe = {"defense": "consistency", "content": digest(x), "labels": digest(y), "classes": classes, "seed": seed,
              "epochs": epochs, "shape": list(x.shape)}  # fmt: skip
    return load_or_train(name, build, learn, recipe=recipe)[0]


class Disagreement(Statistics):
    """The Jensen-Shannon divergence of what both channels are read as, (n, 1)."""

    def __init__(self, victim: Victim, readers: nn.ModuleList, shapes: list[tuple[int, ...]]) -> None:
        super().__init__(victim)
        self.readers, self.shapes = readers, shapes

    def forward(self, x: Tensor) -> Tensor:
        a, b = (read(part) for read, part in zip(self.readers, split(x, self.shapes), strict=True))
        return divergence(a, b).clamp_min(0).unsqueeze(1)


class Repaired(nn.Module):
    """The victim's scores, of pairs that disagree after the stranger channel was made anew from the other."""

    typical: Tensor

    def __init__(
        self, victim: Victim, readers: nn.ModuleList, shapes: list[tuple[int, ...]], risk: Risk, x: Tensor, y: Tensor,
        classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.victim, self.inner, self.readers, self.shapes, self.risk = victim, victim.module, readers, shapes, risk
        with torch.no_grad():
            scores = asked(victim, x, torch.arange(len(x))).log_softmax(1)
            sure = torch.stack([torch.where(y == c, scores[:, c], -torch.inf).argmax() for c in range(classes)])
            self.register_buffer("typical", x[sure])  # of each class the pair that the victim is surest of
            for i, part in enumerate(split(x, shapes)):
                h = self._features(i, part)
                centre = torch.stack([h[y == c].mean(0) if bool((y == c).any()) else h.mean(0) for c in range(classes)])
                spread = (h - centre[y]).square().mean(0).sqrt().clamp_min(1e-3)
                far = ((h.unsqueeze(1) - centre) / spread).square().mean(2).amin(1)
                for name, value in (("centre", centre), ("spread", spread), ("usual", far.mean())):
                    self.register_buffer(f"{name}{i}", value)

    def _features(self, i: int, part: Tensor) -> Tensor:
        return self.readers[i][:-1](part)  # type: ignore[index]

    def strange(self, x: Tensor) -> Tensor:
        """Of each channel the squared distance of its features from the nearest class, by what is usual: (n, 2)."""
        out = []
        for i, part in enumerate(split(x, self.shapes)):
            centre, spread, usual = (getattr(self, f"{name}{i}") for name in ("centre", "spread", "usual"))
            far = ((self._features(i, part).unsqueeze(1) - centre) / spread).square().mean(2).amin(1)
            out.append(far / usual)
        return torch.stack(out, 1)

    def rebuilt(self, x: Tensor, channel: Tensor) -> Tensor:
        """Pairs whose `channel` int64 (n,) is made anew from the other; straight-through in what is read there."""
        parts, typical = split(x, self.shapes), split(self.typical, self.shapes)
        made = []
        for i in (0, 1):
            p = self.readers[1 - i](parts[1 - i]).softmax(1)
            hard = F.one_hot(p.argmax(1), p.shape[1]).to(p)
            one = (hard + (p - p.detach())) @ typical[i].flatten(1)
            made.append(torch.where((channel == i).unsqueeze(1), one, parts[i].flatten(1)))
        return torch.cat(made, 1)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Scores (n, classes)."""
        with torch.no_grad():
            odd = self.risk(x) >= 0.5
            channel = self.strange(x).argmax(1)
        return asked(self.victim, torch.where(odd.unsqueeze(1), self.rebuilt(x, channel), x), keys)
