"""A lane's victim as a PyTorch module, for the attacks of other libraries: metered, canonical, and stopped in time."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from advgym.errors import AdvgymError, BudgetExhausted, unknown
from advgym.lib.foreign import own_states

EVERYWHERE = 1e4  # beyond any box
CLASSES = 1000  # that labels alone are written in, more where a label is above: how many there are is not told


class Metered(nn.Module):
    """Images (n, *shape) of one lane in, scores (n, classes) out; a query a row, a gradient a row that is asked back.

    What the model sees is the canonical input (straight-through), as in `step`. The nearest success within the
    constraint is kept in `held`. One query is left for handing in.

    Args:
        env: a view of one lane.
        reference: the output that the goal is about: the clean one, or the target.
    """

    def __init__(self, env, reference: Tensor, targeted: bool, classes: int) -> None:
        super().__init__()
        self.env, self.targeted, self.classes = env, targeted, classes
        self.label = nn.Parameter(reference.reshape(1).clone(), requires_grad=False)  # libraries ask for a device
        self.clean = env.threat.apply(env.threat.null())
        self.held, self.best = env.threat.null(), torch.inf
        self.radius = float(env.threat.reach[0])
        if not isinstance(self.clean, Tensor) or self.clean.shape != self.held.shape:
            raise AdvgymError("the attacks of other libraries change an input entry by entry: play an additive Field")

    def bounds(self) -> tuple[float, float]:
        """The box."""
        far = torch.full_like(self.held, EVERYWHERE)
        return float(self.env.threat.apply(-far).min()), float(self.env.threat.apply(far).max())

    def forward(self, x: Tensor) -> Tensor:
        """Scores; under decision knowledge one of one-hot ones.

        Raises:
            BudgetExhausted: where fewer queries are left than rows are asked, one being kept.
        """
        if not bool(self.env.live.all()) or int(self.env.asks_left.min()) <= len(x):
            raise BudgetExhausted("the queries of this lane are spent")
        change = x - self.clean
        seen = self.env.threat.apply(change.unsqueeze(0)).view(x.shape)
        scores = self.env.victim(seen, torch.zeros(len(x), dtype=torch.int64, device=x.device))
        if self.env.knowledge == "decision":
            self.classes = max(self.classes, int(scores.max()) + 1)
            scores = nn.functional.one_hot(scores.long(), self.classes).float()
        self._keep(change.detach(), scores.detach())
        return scores

    def _keep(self, change: Tensor, scores: Tensor) -> None:
        hit = scores.argmax(1) == self.label
        hit = hit if self.targeted else ~hit & torch.isfinite(scores).all(1)
        good = hit & self.env.threat.check(change.unsqueeze(0))[0]
        size = torch.where(good, self.env.threat.distance(change.unsqueeze(0))[0], torch.inf)
        least = float(size.min())
        if least < self.best:
            at = int(size.argmin())
            self.held, self.best = change[at : at + 1], least


def play(env, seed: int, run: Callable[[Metered, Tensor, Tensor], Tensor | None]) -> Tensor:
    """Each lane's attack after the other, `run(model, x, label)`; what it found is asked once and handed in.

    Libraries draw from global random states, and stop by the batch: alone and seeded by itself, a lane's result does
    not depend on the others.
    """
    obs, _ = env.reset(seed=seed)
    output = obs["output"] if env.proposals is None else obs["output"][:, 0]
    if output.dim() != 1 or env.threat.model.goal not in ("untargeted", "targeted"):
        raise AdvgymError("the attacks of other libraries are about one class of an input: play a classifier")
    targeted = env.threat.model.goal == "targeted"
    reference = obs["target"].reshape(-1) if targeted else output
    classes = obs["scores"].shape[-1] if "scores" in obs else CLASSES
    seeds, found = env.draws(seed).integers(2**31 - 1), env.threat.null()
    for lane in env.live.nonzero().squeeze(1).tolist():
        view = env.view([lane])
        model = Metered(view, reference[lane], targeted, classes)
        last = None
        with own_states(int(seeds[lane])), contextlib.suppress(BudgetExhausted):
            last = run(model, model.clean.clone(), reference[lane : lane + 1].clone())
        found[lane : lane + 1] = _hand_in(view, model, last)
    return found


def _hand_in(view, model: Metered, last: Tensor | None) -> Tensor:
    """The nearest success that was seen, or else what the library returned."""
    p: Tensor = model.held
    if model.best == torch.inf and last is not None:
        p = view.threat.project((last.detach() - model.clean).nan_to_num())
    if not view.done:
        view.step(p)
    return p


# -- libraries -----------------------------------------------------------------------------------------------
def checked_settings(what: str, function: Callable[..., Any], given: dict[str, Any], kept: tuple[str, ...]) -> None:
    """Refuse settings that the library's attack does not have.

    Args:
        kept: parameters that are ours to give.
    """
    names = [n for n in inspect.signature(function).parameters if n not in (*kept, "self", "args", "kwargs")]
    for name in given:
        if name not in names:
            raise unknown(f"setting of {what}", name, names)
