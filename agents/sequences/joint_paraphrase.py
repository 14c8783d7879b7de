"""Joint paraphrasing of sentences and words by gradient-guided greedy search (Lei et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import best_of, choose, clean_fitness, fitness, sweep
from advgym.agents.shared.once import once
from advgym.lib.settings import COUNT, Range

WIDE = 1 << 16  # cells of a table beyond which no mask is dense


@register_agent(
    "joint-paraphrase",
    kind="edits",
    knowledge="white-box",
    proposals=16,
    allowed={"positions": Range(1, 10), "ranked": COUNT},
)
def attack(env, *, positions=4, ranked=16, exchange=True, seed=0):
    """Sentences by greedy search on the objective, then words by gradient-guided greedy search (Lei et al. 2019).

    Both stages take the edit of largest marginal gain, which is within 1 - 1/e of the best set where the objective is
    monotone and submodular. Sentences: gains are read from queries, and only the best few are asked again after each
    pick (lazy greedy, Minoux 1978). Words: the gradient ranks all edits, and every combination of the best `positions`
    of them is asked in one forward. (`joint-greedy` has no gradients: words go the sentences' way.) When the budgets
    are full, edits are dropped one by one and chosen again while that helps.

    Tables whose sites stand alone have words only; there it is gradient-guided greedy.
    """
    return search(env, positions, ranked, exchange=exchange, guided=True, seed=seed)


def search(env, positions: int, ranked: int, *, exchange: bool, guided: bool, seed: int) -> Tensor:
    """Sentences, then words: by gradients where `guided`, else from scores alone."""
    obs, _ = env.reset(seed=seed)
    env = once(env)
    held, best = env.threat.null(), clean_fitness(obs)
    own = _parents(env)
    if bool(own.any()):
        held, best, _ = lazy_greedy(env, held, held, best, own, seed)
    fill = (lambda state, held, best: _guided(env, state, held, best, positions, ranked)) if guided else None
    if fill is not None:
        held, best = fill(held, held, best)
        hints = None
    else:
        held, best, hints = lazy_greedy(env, held, held, best, ~own, seed)
    row, idle, most = 0, 0, int(env.table.limit.max())
    while exchange and not env.done and idle < most:
        before = best
        dropped = env.threat.compose(held, held[:, row % most])  # and what lives under it
        if fill is not None:
            held, best = fill(dropped, held, best)
        else:
            held, best, hints = lazy_greedy(env, dropped, held, best, ~own, seed, hints)
        idle = 0 if bool(((best > before) & env.live).any()) else idle + 1
        row += 1
    return held


def _parents(env) -> Tensor:
    """Bool (sites,): sites that others live under."""
    under = env.table.under
    out = torch.zeros(env.table.sites, dtype=torch.bool, device=env.threat.reach.device)
    if under is not None:
        out[under[:, 0][under[:, 0] >= 0]] = True
    return out


def open_edits(env, state: Tensor) -> Tensor:
    """Bool (lanes, sites, choices): new edits that the budgets and the choices made in `state` leave open."""
    site, choice = state[..., 0], state[..., 1]
    made = torch.full((len(state), env.table.sites + 1), -1, device=state.device)
    made.scatter_(1, torch.where(site >= 0, site, env.table.sites), torch.where(site >= 0, choice, -1))
    able = env.threat.mask(state) & (made[:, :-1] < 0).unsqueeze(2)
    under = env.table.under
    if under is not None:  # the last entry of `made` stands for no parent
        able &= (made[:, under[:, 0]] == under[:, 1]).unsqueeze(2)
    return able


def packed(able: Tensor, most: int, u: Tensor | None = None) -> Tensor:
    """The True cells of (lanes, sites, choices) as edits (lanes, M, 2), padded with -1; the `most` of largest `u`."""
    flat = able.flatten(1)
    many = int(flat.sum(1).max())
    if many > most and u is not None:
        cut = torch.where(flat, u, -1.0).topk(most, 1).values[:, -1:]
        flat, many = flat & (u >= cut), most
    out = torch.full((len(flat), max(many, 1), 2), -1, device=able.device)
    lane, cell = flat.nonzero(as_tuple=True)
    place = flat.cumsum(1)[lane, cell] - 1
    keep = place < out.shape[1]
    out[lane[keep], place[keep]] = torch.stack([cell // able.shape[2], cell % able.shape[2]], 1)[keep]
    return out


def _candidates(env, state: Tensor, sites: Tensor, seed: int) -> Tensor:
    """Open edits at `sites`, as many as half of the queries can ask: all of them, or a random part."""
    most, draws = max(env.threat.model.queries // 2, env.proposals), env.draws(seed)
    if env.table.sites * env.table.choices > WIDE:
        found = env.threat.sample_edit(draws.uniform(most, 2))
        return torch.where(sites[found[..., :1].clamp_min(0)] & _fits(env, state, found).unsqueeze(2), found, -1)
    able = open_edits(env, state) & sites.view(1, -1, 1)
    return packed(able, most, draws.uniform(able[0].numel()))


def _fits(env, state: Tensor, edits: Tensor) -> Tensor:
    """Bool (lanes, M): which edits are new, live, and within the budgets on top of `state`."""
    if env.table.sites * env.table.choices > WIDE:  # no dense mask: compose and check
        held = (edits[..., :1] == state[..., 0].unsqueeze(1)).any(2)
        whole = env.threat.compose(state.unsqueeze(1).expand(-1, edits.shape[1], -1, -1), edits)
        return ~held & env.threat.check(whole)
    lane = torch.arange(len(edits), device=edits.device).unsqueeze(1)
    site, choice = edits.clamp_min(0).unbind(2)
    return open_edits(env, state)[lane, site, choice]


def lazy_greedy(env, state: Tensor, held: Tensor, best: Tensor, sites: Tensor, seed: int, hints=None):
    """Edits at `sites`, bool (sites,), one by one while they help; gains of the others go stale, upper bounds by then.

    Args:
        state: (lanes, E, 2), where to begin; held, best: the best set so far and its fitness.
        hints: (edits, gains) of an earlier call, in place of asking every edit once.

    Returns:
        (best set, its fitness, (edits, their last gains)).
    """
    width = env.proposals
    if hints is None:
        edits = _candidates(env, state, sites, seed)
        value, _ = sweep(env, state, edits)
        gain, fresh = value - best.unsqueeze(1), True
        floor = best
    else:
        (edits, gain), fresh = hints, False
        floor = torch.full_like(best, -torch.inf)  # of a set with a hole: whatever fills it best
    for _ in range(int(env.table.limit.max())):
        if not fresh:
            if env.done:
                break
            fits = _fits(env, state, edits) & (edits[..., 0] >= 0)
            top, at = torch.where(fits, gain, -torch.inf).topk(min(width, gain.shape[1]), 1)
            asked = edits.gather(1, at.unsqueeze(2).expand(-1, -1, 2))
            asked = torch.where(top.isfinite().unsqueeze(2), asked, -1)
            if not bool((asked >= 0).any()):
                break
            value, _ = sweep(env, state, asked)
            gain = gain.scatter(1, at, torch.where(value.isfinite(), value - floor.clamp_min(-1e9).unsqueeze(1), top))
        else:
            asked = edits
        fresh = False
        top, pick = best_of(value, asked)
        go = top > floor
        state = choose(go, env.threat.compose(state, pick), state)
        floor = torch.where(go, top, floor)
        held, best = choose(go & (top > best), state, held), torch.maximum(best, torch.where(go, top, best))
        if not bool((go & env.live).any()):
            break
    return held, best, (edits, gain)


def _guided(env, state: Tensor, held: Tensor, best: Tensor, positions: int, ranked: int) -> tuple[Tensor, Tensor]:
    """Rounds of: rank all edits by one gradient, ask the best ones, then every combination of the best `positions`."""
    combinations = [m for m in range(2**positions) if m.bit_count() > 1][: env.proposals]
    for _ in range(int(env.table.limit.max())):
        if env.done:
            break
        found, gains = env.rank(state, k=ranked)
        found = torch.where(gains.isfinite().unsqueeze(2), found, -1)
        if not bool(((found[..., 0] >= 0) & env.live.unsqueeze(1)).any()):
            break
        single, _ = sweep(env, state, found)
        order = single.argsort(dim=1, descending=True, stable=True).unsqueeze(2).expand(-1, -1, 2)
        top = _apart(torch.where(single.isfinite().unsqueeze(2), found, -1).gather(1, order), positions)
        value, pick = best_of(single, found)
        new = env.threat.compose(state, pick)
        if combinations and not env.done:
            asked = env.threat.null().unsqueeze(1).repeat(1, env.proposals, 1, 1)
            for nth, mask in enumerate(combinations):
                asked[:, nth] = _joined(env, state, top, [j for j in range(positions) if mask >> j & 1])
            obs, *_ = env.step(asked)
            more, several = best_of(torch.where((asked[..., 0] >= 0).any(2), fitness(obs), -torch.inf), asked)
            new, value = choose(more > value, several, new), torch.maximum(value, more)
        state = choose(value.isfinite(), new, state)  # also where it does not help yet: the next gradient is read there
        held, best = choose(value > best, new, held), torch.maximum(best, value)
    return held, best


def _joined(env, state: Tensor, top: Tensor, which: list[int]) -> Tensor:
    """`state` with the edits `which` of top (lanes, positions, 2); null where one is missing or it is not valid."""
    out = state
    for j in which:
        out = env.threat.compose(out, top[:, j])
    fine = (top[:, which, 0] >= 0).all(1) & env.threat.check(out) & env.live
    return torch.where(fine.view(-1, 1, 1), out, -1)


def _apart(edits: Tensor, most: int) -> Tensor:
    """The first `most` edits of (lanes, k, 2) at sites of their own; -1 where there are fewer."""
    site = edits[..., 0]
    again = ((site.unsqueeze(2) == site.unsqueeze(1)).tril(-1)).any(2) | (site < 0)
    front = again.to(torch.int8).argsort(dim=1, stable=True)[:, :most]
    out = torch.where(again.unsqueeze(2), -1, edits).gather(1, front.unsqueeze(2).expand(-1, -1, 2))
    return torch.nn.functional.pad(out, (0, 0, 0, most - out.shape[1]), value=-1)
