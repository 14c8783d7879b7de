"""Word-importance ranking: which sites matter, then the choices at each (the shared core of `wir` and its kin)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from advgym.agents.shared.common import choose, edits_at, sweep
from advgym.errors import AdvgymError, unknown

IMPORTANCE = ("unk", "delete", "gradient", "pwws", "random")
PROBES = {"unk": "unknown", "delete": "deleted", "pwws": "unknown"}
Merit = Callable[[dict], Tensor]


def chance(surrogate: Tensor) -> Tensor:
    """The attack's own probability: 1 - p(reference) of a surrogate -log p, p(target) of a surrogate log p."""
    return torch.where(surrogate >= 0, -torch.expm1(-surrogate), torch.exp(surrogate))


def likelihood(obs: dict) -> Tensor:
    """The surrogate where the proposal counts, -inf elsewhere: in the order of TextAttack's 1 - p(reference)."""
    return torch.where(obs["evaluated"] & obs["valid"], obs["surrogate"].detach(), -torch.inf)


def asked(obs: dict) -> Tensor:
    """`chance` where the proposal was answered, valid or not: what probes say."""
    return torch.where(obs["evaluated"], chance(obs["surrogate"].detach()), -torch.inf)


def answered(obs: dict) -> Tensor:
    """The fitness where the proposal was answered, valid or not."""
    value = (obs["objective"] + 1e-4 * obs["surrogate"]).detach()
    return torch.where(obs["evaluated"], value, -torch.inf)


def order_sites(
    env, importance: str, seed: int, merit: Merit = likelihood, probe: Merit = asked, *, stand_in: bool = False
) -> Tensor:
    """Sites of each lane, most important first, -1 where there are no more: int64 (lanes, sites).

    Args:
        importance: "unk" or "delete" asks with each site unknown or deleted; "gradient" takes the largest first-order
            gain of its choices (one query and one gradient); "pwws" weighs the best choice's score by the softmax of
            the unknown word's, as TextAttack does (every cell is asked); "random".
        merit, probe: measures of answers that must be valid, and that need not.
        stand_in: where the table has no such probe a random choice of the site stands for it.
    """
    if importance not in IMPORTANCE:
        raise unknown("importance", importance, IMPORTANCE)
    some = env.table.site_mask()
    most = max(int(some.sum(1).max()), 1)
    order = some.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    some = some.gather(1, order)
    if importance == "random":
        value = env.draws(seed).uniform(most)
    elif most == 1:
        value = torch.zeros(order.shape, device=order.device)
    elif importance == "gradient":
        value = steepness(env).gather(1, order)
    else:
        value = probed(env, order, some, PROBES[importance], seed, probe, stand_in=stand_in)
        if importance == "pwws":
            weight = torch.softmax(torch.where(some & value.isfinite(), chance(value), -torch.inf), 1).nan_to_num(0.0)
            top, _ = best_choices(env, order, some, merit)
            value = weight * torch.where(top.isfinite(), chance(top), 0.0)
    ranked = torch.where(some, value, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return torch.where(some.gather(1, ranked), order.gather(1, ranked), -1)


def steepness(env) -> Tensor:
    """The largest first-order gain of any choice at each site, float32 (lanes, sites); one query and one gradient.

    TextAttack takes the L1 norm of a word's embedding gradient; the contract shows gains, not embeddings.
    """
    if env.knowledge not in ("white-box", "transfer"):
        raise AdvgymError(f"importance by gradient needs white-box knowledge; this environment gives {env.knowledge!r}")
    edits, gains = env.rank(env.threat.null(), k=min(env.table.cells, 4096))
    site = torch.where(edits[..., 0] >= 0, edits[..., 0], env.table.sites)
    out = gains.new_full((len(gains), env.table.sites + 1), -torch.inf)
    return out.scatter_reduce(1, site, gains, "amax")[:, :-1].nan_to_num(neginf=-1e9)


def probed(
    env, order: Tensor, some: Tensor, name: str, seed: int, merit: Merit = asked, *, stand_in: bool = False
) -> Tensor:
    """What each site is worth by a probe on the clean sample, (lanes, n); -inf where it was not answered.

    Raises:
        AdvgymError: where the table has no such probe, or this threat model forbids it, and nothing may stand in.
    """
    probes = env.table.probes if env.threat.model.probes else {}
    if name not in probes and not stand_in:
        raise AdvgymError(
            f"this search asks with words read as {name}, and the table has "
            f"{'no probe' if not probes else 'the probes ' + ', '.join(probes)}: `greedy` plays any table"
        )
    if name in probes:
        choice = torch.full_like(order, probes[name])
    else:
        u = env.draws(seed).uniform(order.shape[1])
        columns = [_random_choice(env, order[:, j], u[:, j]) for j in range(order.shape[1])]
        choice = torch.stack(columns, 1)
    edits = torch.where(some.unsqueeze(2), torch.stack([order, choice], 2), -1)
    return sweep(env, env.threat.null(), edits, merit, checked=name not in probes)[1]


def best_choices(env, order: Tensor, some: Tensor, merit: Merit) -> tuple[Tensor, Tensor]:
    """Every choice of every site asked on the clean sample: (best merit, its edit) as (lanes, n), (lanes, n, 2)."""
    tops, edits, state = [], [], env.threat.null()
    for i in range(order.shape[1]):
        site = torch.where(some[:, i] & env.live, order[:, i], -1)
        candidates = edits_at(site, env.table.choice_mask(site.clamp_min(0)))
        value = sweep(env, state, candidates, merit)[1]
        top, at = value.max(1)
        tops.append(top)
        edits.append(candidates[torch.arange(len(at), device=at.device), at])
    return torch.stack(tops, 1), torch.stack(edits, 1)


def walk(env, order: Tensor, merit: Merit = likelihood, *, again: int = 0, always: bool = False, start=None) -> Tensor:
    """Go through the sites in order: all choices of a site at once, the best one is taken if it helps.

    Args:
        order: int64 (lanes, n), -1 for none.
        merit: what is compared.
        again: where several edits may share a site, it is visited again with that many of its best choices.
        always: take the best choice even where it does not help (TextBugger).
        start: merit of the clean sample, (lanes,).

    Returns:
        the best set found.
    """
    state = held = env.threat.null()
    best, shared = start, env.table.key != "site"
    lane = torch.arange(len(state), device=state.device)
    for i in range(order.shape[1]):
        if env.done:
            break
        site = torch.where(env.live, order[:, i], -1)
        if not bool((site >= 0).any()):
            continue
        candidates = edits_at(site, env.table.choice_mask(site.clamp_min(0)))
        for _ in range(int(env.table.limit.max()) if shared and again else 1):
            room = (state[..., 0] >= 0).sum(1) < env.table.limit
            tried = torch.where(room.view(-1, 1, 1), candidates, -1)
            if env.done or not bool((tried >= 0).any()):
                break
            value = sweep(env, state, tried, merit)[1]
            top, at = value.max(1)
            better = top > best
            # A site is swapped only where that helps; edits that share a site may have to pile up first.
            go = top.isfinite() if shared or always else better
            edit = candidates[lane, at]
            state = choose(go, env.threat.compose(state, edit), state)
            held, best = choose(better, state, held), torch.where(better, top, best)
            if not bool(go.any()):
                break
            keep = value.topk(min(max(again, 1), value.shape[1]), 1).indices
            left = candidates.gather(1, keep.unsqueeze(2).expand(-1, -1, 2))
            left = torch.where((left == edit.unsqueeze(1)).all(2, keepdim=True), -1, left)
            candidates = torch.where(go.view(-1, 1, 1), left, -1)
    return held


def put_in(env, edits: Tensor, able: Tensor) -> Tensor:
    """Edits (lanes, n, 2) put in one after the other, a query each, as long as the whole stays valid; the last set.

    Args:
        able: bool (lanes, n), which to put in.
    """
    p = env.threat.null()
    for i in range(edits.shape[1]):
        if env.done:
            break
        more = env.threat.compose(p, torch.where(able[:, i : i + 1], edits[:, i], -1))
        go = able[:, i] & env.live & env.threat.check(more)
        p = choose(go, more, p)
        if bool(go.any()):
            whole = env.threat.null().unsqueeze(1).repeat(1, env.proposals, 1, 1)
            whole[:, 0] = torch.where(go.view(-1, 1, 1), p, -1)
            env.step(whole)
    return p


def widened(env):
    """The same lanes with room for all choices of a site in one step, as the papers ask them."""
    mask = env.table.choices if env.table.cells <= 1 << 16 else 0
    many = int(env.table.mask().sum(2).max()) if mask else 0
    return env.view(proposals=many) if many > (env.proposals or 1) else env


def clean_surrogate(obs: dict) -> Tensor:
    """The surrogate of the clean sample, from the observation of a reset: (lanes,)."""
    value = obs["surrogate"].detach()
    return value if value.dim() == 1 else value[:, 0]


def _random_choice(env, site: Tensor, u: Tensor) -> Tensor:
    mask = env.table.choice_mask(site)
    nth = (u * mask.sum(1)).long() + 1
    return torch.searchsorted(mask.cumsum(1), nth.unsqueeze(1)).squeeze(1).clamp_max(mask.shape[1] - 1)
