"""Input reduction (Feng et al. 2018)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.slots import Slots, ask


@register_agent("input-reduction", kind="edits", knowledge="score", proposals=32, needs=("keep",))
def attack(env, *, once=False, seed=0):
    """The least important edit again and again, as long as the prediction stays: words deleted until few are left.

    Each step asks about every edit left and keeps the one after which the clean output is likeliest.

    Args:
        env: Edits that delete words, a classifier.
        once: rank all words on the clean text alone (n queries and one a step), not anew at each step.
        seed: of the sample of a table that is too large.
    """
    obs, _ = env.reset(seed=seed)
    draws = env.draws(seed)
    slots = Slots(env, draws)
    reference = obs["output"][:, :1]
    x, lane = slots.clean(1), torch.arange(len(reference), device=reference.device)

    def kept(answer: dict) -> torch.Tensor:
        """How likely the clean output still is; -inf where another one is likelier."""
        same = answer["output"] == reference.view(-1, *[1] * (answer["output"].dim() - 1))
        if answer["scores"].dim() != 3:
            return torch.where(answer["evaluated"], answer["surrogate"].detach(), -torch.inf)
        likely = answer["scores"].detach().log_softmax(2)
        value = likely.gather(2, reference.unsqueeze(2).expand(-1, likely.shape[1], -1)).squeeze(2)
        return torch.where(answer["evaluated"] & same, value, -torch.inf)

    ranking = None
    for _ in range(int(slots.limit.max())):
        if env.done:
            break
        free = slots.free(x)[:, 0]
        if ranking is None or not once:
            value = ranking = ask(env, free, lambda at, x=x: slots.edits(_each(slots, x, at)), kept)
        else:
            value = torch.where(free, ranking, -torch.inf)
        top, cell = value.max(1)
        go = top.isfinite() & env.live
        if not bool(go.any()):
            break
        if once:  # asked alone so far, never together with the others
            grown = slots.put(x, cell.unsqueeze(1))
            together = ask(env, go.unsqueeze(1), lambda at, grown=grown: slots.edits(grown)[:, : at.shape[1]], kept)
            ranking = ranking.clone()
            ranking[lane, cell] = -torch.inf
            go = go & together[:, 0].isfinite()
        x = slots.put(x, torch.where(go, cell, -1).unsqueeze(1))
    return slots.edits(x)[:, 0]


def _each(slots: Slots, x: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Positions x (lanes, 1, slots) with one of the cells (lanes, P) on top: (lanes, P, slots)."""
    return slots.put(x.expand(-1, cells.shape[1], -1), cells)
