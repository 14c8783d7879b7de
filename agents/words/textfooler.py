"""TextFooler (Jin et al. 2020)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.importance import chance, clean_surrogate, order_sites, walk, widened


@register_agent("textfooler", kind="edits", knowledge="score", proposals=16, needs=("deleted",))
def attack(env, *, seed=0):
    """Words by the loss of probability without them, then all substitutes of each; stops at the first success.

    Where deletion changes the output, the gain of the new class counts too (equation 2 of the paper). Among several
    successes at one word the paper takes the most similar sentence; similarity is the task's constraint here, so the
    one of largest score is taken.
    """
    env.reset(seed=seed)
    env = widened(env)
    obs, _ = env.reset(seed=seed)
    before = _scores(obs)

    def importance(answer: dict) -> torch.Tensor:
        drop = chance(answer["surrogate"].detach())
        if before is not None:
            now, new = answer["scores"].detach().softmax(-1), answer["output"].clamp_min(0).unsqueeze(2)
            gain = now.gather(2, new) - before.unsqueeze(1).expand_as(now).gather(2, new)
            drop = drop + torch.where(answer["output"] != obs["output"][:, :1], gain.squeeze(2), 0.0)
        return torch.where(answer["evaluated"], drop, -torch.inf)

    order = order_sites(env, "delete", seed, probe=importance)
    return walk(env, order, start=clean_surrogate(obs))


def _scores(obs: dict) -> torch.Tensor | None:
    """Clean probabilities of a classifier, (lanes, classes); None for other victims."""
    return obs["scores"][:, 0].detach().softmax(-1) if obs["scores"].dim() == 3 and obs["output"].dim() == 2 else None
