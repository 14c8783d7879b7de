"""Every single edit, evaluated: the optimum for one edit, and greedy search with exact steps for more."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose, edits_at, fitness
from advgym.agents.shared.slots import DENSE, ask
from advgym.errors import AdvgymError

log = logging.getLogger("advgym")


@register_agent("exhaustive", kind="edits", knowledge="decision", proposals=256)
def attack(env, *, exact=False, seed=0):
    """All single edits of the table (Dai et al. 2018 bound their attacks by it), then greedily the best of each step.

    With one edit allowed this is the optimum: no attack of one edit succeeds where it fails. Under decision knowledge
    it ends there, since labels do not say which failed edit to build upon; with scores every further edit is the exact
    best on top of the last. It needs as many queries as the table has cells for each edit; a smaller budget is spent
    on the first cells, with a warning.

    Args:
        env: Edits.
        exact: raise AdvgymError, before anything is asked, where the budget cannot hold every cell.
        seed: unused, the attack draws nothing.
    """
    obs, _ = env.reset(seed=seed)
    scored = "objective" in obs
    left = int(obs["queries_left"].min()) - (env.knowledge == "transfer")
    steps = int(env.table.limit.max()) if scored else 1
    edits = every_edit(env, left + 1)
    most = int((edits[..., 0] >= 0).sum(1).max())
    if most * steps > left:
        least = "at least " if env.table.cells > DENSE and most > left else ""  # the rest was not listed
        need = f"{least}{most * steps + (env.knowledge == 'transfer')} queries for {steps} edit(s)"
        text = f"exhaustive search needs {need}, and {int(obs['queries_left'].min())} are left: raise queries="
        if exact:
            raise AdvgymError(f"{text}, allow fewer edits=, or take another agent")
        log.warning("%s; only the first cells are tried", text)
    state = held = env.threat.null()
    best = torch.full_like(env.threat.reach, -torch.inf)
    for _ in range(steps):
        if env.done or left < 1:
            break
        value, left = exact_step(env, state, edits, left)
        top, at = value.max(1)
        state = choose(top.isfinite(), on_top(env, state, edits, at.unsqueeze(1))[:, 0], state)
        held, best = choose(top > best, state, held), torch.maximum(best, top)
    return held


def every_edit(env, most: int) -> Tensor:
    """The cells of every lane's table in order, padded with -1: (lanes, M, 2), about the first `most` of large ones."""
    table = env.table
    if table.cells <= DENSE:
        some = table.mask().flatten(1)
        order = some.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : max(int(some.sum(1).max()), 1)]
        cells = torch.stack([order // table.choices, order % table.choices], 2)
        return torch.where(some.gather(1, order).unsqueeze(2), cells, -1)
    sites = table.site_mask()
    count = sites.sum(1)
    order = sites.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    parts, found = [], torch.zeros_like(count)
    for nth in range(int(count.max())):
        site = torch.where(nth < count, order[:, nth], -1)
        parts.append(edits_at(site, table.choice_mask(site.clamp_min(0))))
        found += (parts[-1][..., 0] >= 0).sum(1)
        if bool(((found >= most) | (nth + 1 >= count)).all()):
            break
    edits = torch.cat(parts, 1) if parts else env.threat.null()[:, :1]
    if len(parts) < 2:
        return edits
    some = edits[..., 0] >= 0
    front = (~some).to(torch.int8).argsort(dim=1, stable=True)[:, : max(int(some.sum(1).max()), 1)]
    return edits.gather(1, front.unsqueeze(2).expand(-1, -1, 2))


def on_top(env, state: Tensor, edits: Tensor, at: Tensor) -> Tensor:
    """`state` (lanes, E, 2) with one of edits (lanes, M, 2) each, by index (lanes, P): (lanes, P, E, 2)."""
    picked = edits.gather(1, at.unsqueeze(2).expand(-1, -1, 2))
    return env.threat.compose(state.unsqueeze(1).expand(-1, at.shape[1], -1, -1), picked)


def exact_step(env, state: Tensor, edits: Tensor, left: int, want: Tensor | None = None) -> tuple[Tensor, int]:
    """The worth of every edit on top of `state`, (lanes, M), -inf where it was not asked; and the queries left.

    Worth is the fitness; under decision knowledge 1 for a success and 0 else. Edits of keys that are held are not new.

    Args:
        left: queries at most, per lane; the first candidates are asked.
        want: bool (lanes, M), which are candidates; None for all.
    """
    new = edits[..., 0] >= 0
    for row in range(state.shape[1]):
        held = state[:, row].unsqueeze(1)
        same = edits[..., 0] == held[..., 0]
        if env.table.key != "site":
            same = same & (edits[..., 1] == held[..., 1])
        new &= ~(same & (held[..., 0] >= 0))
    want = new if want is None else new & want
    want = want & (want.cumsum(1) <= left)
    value = ask(env, want, lambda at: on_top(env, state, edits, at), _worth)
    return value, left - int(want.sum(1).max())


def _worth(obs: dict) -> Tensor:
    if "objective" in obs:
        return fitness(obs)
    return torch.where(obs["evaluated"], (obs["success"] & obs["valid"]).float(), -torch.inf)
