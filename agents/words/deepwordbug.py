"""DeepWordBug (Gao et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.importance import asked, probed, put_in
from advgym.errors import AdvgymError, unknown
from advgym.lib.settings import NATURAL

SCORING = ("replace-1", "temporal", "tail", "combined", "random")


@register_agent(
    "deepwordbug",
    kind="edits",
    knowledge="score",
    proposals=16,
    needs=("unknown", "bugs"),
    allowed={"scoring": SCORING, "weight": NATURAL},
)
def attack(env, *, scoring="replace-1", weight=1.0, seed=0):
    """Words by a scoring head, then one random bug at each of the best, until the limit; a query per bug.

    Args:
        env: Edits; the bugs (typos, look-alikes) are the task's table: `candidates="typos"` or "homoglyphs".
        scoring: "replace-1" (the word unknown), "temporal" (the text up to the word against up to the one before),
            "tail" (the same from the word on), "combined" (temporal + weight * tail), or "random". The temporal heads
            ask the victim about raw parts of the text, n or 2 n queries.
        weight: of the tail in "combined".
        seed: of the bugs.
    """
    if scoring not in SCORING:
        raise unknown("scoring", scoring, SCORING)
    obs, _ = env.reset(seed=seed)
    draws = env.draws(seed)
    some = env.table.site_mask()
    if scoring == "replace-1":
        order = torch.arange(some.shape[1], device=some.device).expand_as(some)
        value = probed(env, order, some, "unknown", seed, asked)
    elif scoring == "random":
        value = draws.uniform(some.shape[1])
    else:
        value = torch.zeros(some.shape, device=some.device)
        if scoring != "tail":
            value = value + parts(env, obs, tail=False)
        if scoring != "temporal":
            value = value + (1.0 if scoring == "tail" else weight) * parts(env, obs, tail=True)
    ranked = torch.where(some, value, -torch.inf).argsort(dim=1, descending=True, stable=True)
    able = some.gather(1, ranked)
    u = draws.uniform(ranked.shape[1])
    edits = torch.stack([_bug(env, ranked[:, i], u[:, i]) for i in range(ranked.shape[1])], 1)
    return put_in(env, edits, able & (edits[..., 0] >= 0))


def parts(env, obs: dict, *, tail: bool) -> Tensor:
    """How much the word at each site adds to the text up to it (tail: from it on): float32 (lanes, sites).

    The drop of the clean output's log-probability, from raw texts; a lane that cannot pay for all of them gets zeros.
    """
    names = None if env.context is None else env.context.get("vocabulary")
    words, reference = obs.get("words"), obs["output"][:, 0]
    if names is None or words is None or words.shape[1] != env.table.sites or reference.dim() != 1:
        raise AdvgymError("the temporal heads read the words of a classified text; scoring='replace-1' plays any task")
    out = torch.zeros(words.shape, device=words.device)
    left = obs["queries_left"].tolist()
    for i, row in enumerate(words.tolist()):
        here = [s for s, w in enumerate(row) if w >= 0]
        if not bool(env.live[i]) or left[i] <= len(here):
            continue
        text = [names[row[s]] for s in here]
        texts = [" ".join(text[n:] if tail else text[: n + 1]) for n in range(len(text))]
        answer = env.victim(texts, [i] * len(texts)).detach().log_softmax(1)[:, int(reference[i])]
        nothing = answer.new_zeros(1)
        change = answer - torch.cat([answer[1:], nothing] if tail else [nothing, answer[:-1]])
        out[i, here] = change.to(out)
    return out


def _bug(env, site: Tensor, u: Tensor) -> Tensor:
    """A random choice at one site per lane, (lanes, 2); -1 where it has none."""
    mask = env.table.choice_mask(site)
    nth = (u * mask.sum(1)).long() + 1
    choice = torch.searchsorted(mask.cumsum(1), nth.unsqueeze(1)).squeeze(1).clamp_max(mask.shape[1] - 1)
    return torch.where(mask.any(1, keepdim=True), torch.stack([site, choice], 1), -1)
