"""Keywords in what a victim writes: their likelihoods at places of their own, and a coordinate search on the sum."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from advgym.agents.shared.common import best_of, choose
from advgym.core.rng import mix


def wanted(env) -> tuple[Tensor, Tensor]:
    """(tokens of the keywords int64 (lanes, K), clean scores (lanes, T, V)), for a query and a gradient.

    The surrogate of the goal rises with the scores of keywords and of no other token. -1 where a lane has fewer.
    """
    null = env.threat.null()
    weights = torch.zeros(null.shape[:-1], device=null.device, requires_grad=True)
    obs, *_ = env.step((null, weights))
    (g,) = torch.autograd.grad(obs["surrogate"].sum(), obs["scores"])
    rise = g.clamp_min(0).sum(1)
    value, token = rise.topk(max(1, int((rise > 0).sum(1).max())), 1)
    return torch.where(value > 0, token, -1), obs["scores"].detach()


def likelihoods(scores: Tensor, token: Tensor) -> Tensor:
    """Log-probability of each keyword at each position: (..., T, V) and (..., K) to (..., K, T); 0 for keyword -1."""
    at = token.clamp_min(0).unsqueeze(-2).expand(*scores.shape[:-1], token.shape[-1])
    value = (scores.gather(-1, at) - scores.logsumexp(-1, keepdim=True)).transpose(-1, -2)
    return torch.where(token.unsqueeze(-1) >= 0, value, 0.0)


def placed(likely: Tensor) -> Tensor:
    """The likelihoods (..., K) of the keywords at positions of their own, those of the greatest sum: of (..., K, T).

    One of its K best positions is always left to a keyword, so that no others need be looked at.
    """
    many = likely.shape[-2]
    value, at = likely.topk(min(many, likely.shape[-1]), -1)
    best = torch.full_like(value[..., 0], -torch.inf)
    most = torch.full_like(best[..., 0], -torch.inf)
    for order in itertools.product(range(value.shape[-1]), repeat=many):
        each = torch.stack([value[..., j, nth] for j, nth in enumerate(order)], -1)
        place = torch.stack([at[..., j, nth] for j, nth in enumerate(order)], -1)
        apart = (place.unsqueeze(-1) != place.unsqueeze(-2)).sum((-1, -2)) == many * (many - 1)
        total = torch.where(apart, each.sum(-1), -torch.inf)
        best = torch.where((total > most).unsqueeze(-1), each, best)
        most = torch.maximum(most, total)
    return best


def slope(scores: Tensor, token: Tensor, likely: Tensor, weight: Tensor) -> Tensor:
    """The gradient in the scores (n, T, V) of the keywords' likelihoods, weighted (n, K).

    Each keyword's counts at its likely positions, less those where another keyword stands already: the position mask of
    Seq2Sick, made soft.
    """
    said = scores.argmax(2).unsqueeze(1) == token.unsqueeze(2)  # (n, K, T)
    taken = said.any(1, keepdim=True) & ~said
    q = torch.where(taken, -torch.inf, likely).softmax(2).nan_to_num(0.0)
    q = q * (weight * (token >= 0)).unsqueeze(2)
    out = -q.sum(1).unsqueeze(2) * scores.softmax(2)
    at = token.clamp_min(0).unsqueeze(1).expand(-1, scores.shape[1], -1)
    return out.scatter_add(2, at, q.transpose(1, 2))


def names(edits: Tensor) -> Tensor:
    """A hash of each edit, int64 (...); 0 for padding. A set's is their sum, whatever the order."""
    return torch.where(edits[..., 0] >= 0, mix(mix(edits[..., 0] + 1) + edits[..., 1]), 0)


def fresh(found: Tensor, before: Tensor, asked: Tensor) -> Tensor:
    """Bool (n, M): edits (n, M, 2) that are real, not there twice, and on top of sets `before` (n,) not yet asked."""
    name = names(found)
    again = (name.unsqueeze(2) == name.unsqueeze(1)).tril(-1).any(2)
    known = ((name + before.unsqueeze(1)).unsqueeze(2) == asked.unsqueeze(1)).any(2)
    return (found[..., 0] >= 0) & ~again & ~known


def drawn(usable: Tensor, many: int, best: int, u: Tensor) -> Tensor:
    """Indices int64 (n, many) into usable (n, M), sorted by merit: the first `best` and others by u; -1 for none."""
    rank = usable.cumsum(1)
    score = torch.where(rank <= best, 3.0 - rank / usable.shape[1], u)
    value, at = torch.where(usable, score, -1.0).topk(min(many, usable.shape[1]), 1)
    return torch.nn.functional.pad(torch.where(value >= 0, at, -1), (0, many - at.shape[1]), value=-1)


def search(
    env, *, width: int, ranked: int, others: float = 0.3, drop: float = 0.3, patience: int = 4, kick: float = 0.4,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """Greedy coordinate search (after Zou et al. 2023) on the sum of the keywords' log-probabilities.

    A round takes one edit back where the set is full (and now and then where it is not), asks for the scores of what is
    left, ranks substitutes by a gradient for each keyword, and asks for `width` of them on top: half the best, half
    drawn. The set stays as it was where none is better; after `patience` such rounds some of its edits go.

    Args:
        env: white-box, goal "keyword".
        width: proposals of a round.
        ranked: substitutes of each gradient.
        others: weight of the other keywords in the gradient of one.
        drop: how often an edit goes though there is room.
        patience: rounds without a gain before a kick.
        kick: the part of the edits that it drops.
        seed: of the draws.

    Returns:
        The likeliest set of every lane (lanes, E, 2).
    """
    held, most = env.threat.null(), torch.full((env.num_envs,), -torch.inf, device=env.device)
    rows = env.live.nonzero().squeeze(1)
    env = env.view(rows, proposals=width)
    draws, state, limit = env.draws(seed), env.threat.null(), env.table.limit
    token, clean = wanted(env.view())
    merit = placed(likelihoods(clean, token)).sum(1)
    idle, asked = torch.zeros_like(rows), rows.new_zeros(len(rows), 0)
    obs, _ = env.reset()
    while not env.done and bool((obs["gradients_left"] > 0).any()):
        live = env.live
        if not bool(live.all()):  # lanes that are over take no part
            env, draws.keys = env.view(live, proposals=width), draws.keys[live]
            kept = (rows, token, clean, state, limit, merit, idle, asked)
            rows, token, clean, state, limit, merit, idle, asked = (v[live] for v in kept)
        tired = idle >= patience
        gone = tired.unsqueeze(1) & (draws.uniform(state.shape[1]) < kick)
        state = torch.where(gone.unsqueeze(2), -1, state)
        idle, merit = torch.where(tired, 0, idle), torch.where(tired, -torch.inf, merit)
        base = one_less(state, limit, draws.uniform(state.shape[1]), draws.uniform(1) < drop)
        obs, *_ = env.view().step(base)
        scores = torch.where(obs["evaluated"].view(-1, 1, 1), obs["scores"], clean)  # nothing left is clean, and free
        likely = likelihoods(scores, token)
        each = placed(likely)
        better = each.sum(1) >= merit
        state, merit = choose(better, base, state), torch.maximum(merit, each.sum(1))
        edits = ranking(env.view(), base, scores, token, likely, each, others, ranked)
        chosen = proposals(edits, names(base).sum(1), asked, width, draws)
        trial = env.threat.compose(base.unsqueeze(1).expand(-1, width, -1, -1), chosen)
        trial = torch.where((chosen[..., :1] >= 0).unsqueeze(3), trial, -1)
        asked = torch.cat([asked, names(trial).sum(2)], 1)
        obs, *_ = env.step(trial)
        each = placed(likelihoods(obs["scores"], token.unsqueeze(1).expand(-1, width, -1))).sum(2)
        value, pick = best_of(torch.where(obs["evaluated"] & obs["valid"], each, -torch.inf), trial)
        better = value > merit
        idle = torch.where(better, 0, idle + 1)
        state, merit = choose(better, pick, state), torch.maximum(merit, value)
        top = merit > most[rows]
        held[rows], most[rows] = choose(top, state, held[rows]), torch.maximum(merit, most[rows])
    return held


def one_less(state: Tensor, limit: Tensor, u: Tensor, anyway: Tensor) -> Tensor:
    """States (n, E, 2) less their edit of largest u (n, E): where they are full, or of several and `anyway` (n, 1)."""
    some = state[..., 0] >= 0
    count = some.sum(1, keepdim=True)
    out = torch.where(some, u, -1.0).argmax(1, keepdim=True) == torch.arange(state.shape[1], device=state.device)
    out &= (count >= limit.unsqueeze(1)) | (anyway & (count > 1))
    return torch.where((out & some).unsqueeze(2), -1, state)


def ranking(env, base: Tensor, scores: Tensor, token: Tensor, likely: Tensor, each: Tensor, others: float, k: int):
    """The k best edits by a gradient per keyword, the least likely first: (n, k, 2) each, -1 where there are fewer."""
    worst = torch.where(token >= 0, each, torch.inf).argsort(1)
    out = []
    for nth in range(token.shape[1]):
        weight = torch.full_like(each, others).scatter(1, worst[:, nth : nth + 1], 1.0)
        edits, gains = env.rank(base, slope(scores, token, likely, weight), k=k)
        out.append(torch.where(gains.isfinite().unsqueeze(2), edits, -1))
    return out


def proposals(edits: list[Tensor], before: Tensor, asked: Tensor, width: int, draws) -> Tensor:
    """Edits (n, width, 2) out of the rankings in equal parts, half the best and half drawn; none was asked before."""
    usable = fresh(torch.cat(edits, 1), before, asked).split([e.shape[1] for e in edits], 1)
    out = []
    for nth, (found, fine) in enumerate(zip(edits, usable, strict=True)):
        part = width * (nth + 1) // len(edits) - width * nth // len(edits)
        at = drawn(fine, part, part // 2, draws.uniform(fine.shape[1])).unsqueeze(2)
        out.append(torch.where(at >= 0, found.gather(1, at.clamp_min(0).expand(-1, -1, 2)), -1))
    return torch.cat(out, 1)
