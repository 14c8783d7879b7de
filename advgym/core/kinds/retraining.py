"""A classifier that is trained anew for every answer, on a training set of which rows were replaced.

The model of a keyed `Victim(retrains=True)`. A run draws its start and its order from its key alone, so it is the same
in any company. What screens training rows (`agents/defenses/detect`) is asked after a first run, and a second one
learns from what it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core import rng
from advgym.core.kinds.poison import PoisonRows
from advgym.core.victim import Victim
from advgym.errors import AdvgymError, VictimError
from advgym.lib.fit import descend

CHUNK = 512
# (features (N, d), labels int64 (N,), classes) -> (suspicion (N,), which rows are dropped, bool (N,))
Screen = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


class Retrained(nn.Module):
    """Scores (n * M, classes) of `PoisonRows`, after n training runs.

    Args:
        x: float32 (N, *shape), the clean training inputs; labels: int64 (N,).
        build: an untrained network of what `front` makes of inputs; its last linear layer reads the features.
        front: of an input what never learns (a spectrogram): computed once for the clean rows.
        epochs, batch, rate: of AdamW with one cycle of the rate.
    """

    takes_rows = True
    seen: Tensor
    labels: Tensor

    def __init__(
        self, x: Tensor, labels: Tensor, classes: int, build: Callable[[], nn.Module], *,
        front: nn.Module | None = None, epochs: int = 20, batch: int = 64, rate: float = 5e-3,
        screen: Screen | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.build, self.classes, self.screen = build, classes, screen
        self.front = nn.Identity() if front is None else front.eval()
        self.epochs, self.batch, self.rate = epochs, min(batch, len(x)), rate
        self.register_buffer("seen", self._read(x))
        self.register_buffer("labels", labels)

    def screened(self, screen: Screen) -> Retrained:
        """The same runs, whose training rows are screened."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.screen = screen
        return twin

    @torch.no_grad()
    def _read(self, x: Tensor) -> Tensor:
        return torch.cat([self.front(part) for part in x.split(CHUNK)])  # type: ignore[no-untyped-call]

    def training_set(self, rows: PoisonRows, nth: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of version `nth`: what a network reads (N, ...), labels (N,), and which rows were replaced, bool (N,)."""
        used = rows.sites[nth] >= 0
        sites, x, y = rows.sites[nth][used], self.seen.clone(), self.labels.clone()
        poisoned = torch.zeros_like(y, dtype=torch.bool)
        if len(sites):
            x[sites], y[sites], poisoned[sites] = self._read(rows.x[nth][used].detach()), rows.y[nth][used], True
        return x, y, poisoned

    def fit(self, x: Tensor, y: Tensor, seed: int) -> nn.Module:
        """One run."""
        cuda = [x.device.index or 0] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.enable_grad():
            torch.manual_seed(seed)  # its start and its order are drawn on the CPU: the same on every device
            net = self.build().to(x.device)
            batch = min(self.batch, len(x))
            steps = self.epochs * (len(x) // batch)
            optimiser = torch.optim.AdamW(net.parameters(), self.rate, weight_decay=1e-2)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.rate, steps, pct_start=0.2)

            def loss(index: Tensor) -> Tensor:
                index = index.to(x.device)
                return nn.functional.cross_entropy(net(x[index]), y[index])

            orders = (list(torch.randperm(len(x))[: len(x) // batch * batch].split(batch)) for _ in range(self.epochs))  # type: ignore[no-untyped-call]
            descend(net, loss, orders, optimiser, schedule=schedule)
        return net

    def suspicion(self, rows: PoisonRows, nth: int = 0, key: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Of one version's training rows: how suspect each is (N,), which are dropped, which were replaced.

        Raises:
            AdvgymError: where nothing screens the rows.
        """
        if self.screen is None:
            raise AdvgymError("nothing screens these training rows: put spectral-signatures before the victim")
        x, y, poisoned = self.training_set(rows, nth)
        found, dropped = self.screen(features(self.fit(x, y, _seed(key)), x), y, self.classes)
        return found, dropped, poisoned

    @torch.no_grad()
    def forward(self, rows: PoisonRows, keys: Tensor | None = None) -> Tensor:
        """See the class. `keys` int64 (n * M,) or (n,): a version draws by its first."""
        if not isinstance(rows, PoisonRows):
            raise VictimError("a training run answers training sets: it is the victim of poisoning tasks alone")
        keys = torch.zeros(rows.many, dtype=torch.int64) if keys is None else keys.view(rows.many, -1)[:, 0]
        parts = []
        for nth, key in enumerate(keys.tolist()):
            x, y, _ = self.training_set(rows, nth)
            net, seed = None, _seed(key)
            if self.screen is not None:
                dropped = self.screen(features(self.fit(x, y, seed), x), y, self.classes)[1]
                x, y = x[~dropped], y[~dropped]
            net = self.fit(x, y, seed)
            parts.append(net(self._read(rows.asked[nth])))
        return torch.cat(parts) if parts else self.seen.new_zeros(0, self.classes)


def _seed(key: int) -> int:
    return int(rng.bits(0, torch.tensor([key]), (), 57)[0]) & 0x7FFFFFFF


@torch.no_grad()
def features(net: nn.Module, x: Tensor) -> Tensor:
    """What the last linear layer of a network reads, float32 (N, d)."""
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    found: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, args: found.append(args[0].flatten(1)))
    try:
        for part in x.split(CHUNK):  # type: ignore[no-untyped-call]
            net(part)
    finally:
        hook.remove()
    return torch.cat(found)


def retrained(name: str, model: Retrained, **card: Any) -> Victim:
    """The victim of a poisoning task: knowledge up to scores."""
    told = {"train_size": len(model.labels), "classes": model.classes, **card}
    return Victim(model, name=name, access="scores", keyed=True, retrains=True, card=told)
