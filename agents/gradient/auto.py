"""A cascade of attacks (after AutoAttack, Croce and Hein 2020), its members, order and budgets in `suites.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from advgym import register_agent, registry
from advgym.agents.shared.gradients.class_losses import classes_of
from advgym.agents.shared.purse import Purse
from advgym.errors import DataError, unknown
from advgym.lib.settings import NATURAL

SUITES = Path(__file__).parents[1] / "suites.toml"


@register_agent("auto", kind=("field", "edits"), knowledge="white-box", allowed={"propagations": NATURAL})
def attack(env, *, budget="thorough", propagations=0, suite="", seed=0):
    """Attacks in order of what they break per propagation, each on the samples that are left (after AutoAttack 2020).

    Every member plays a view of the lanes that still run, and spends its share of the budget. The last one asks for no
    gradients, so that a victim whose gradients lead nowhere is noticed: what it breaks shows in `first_success`.

    Args:
        budget: propagations of each sample by name, as `suites.toml` has them; at most what the environment gives.
        propagations: the same as a number, 0 for the name's.
        suite: of `suites.toml`; by default the one of the environment's kind and knowledge.
    """
    obs, _ = env.reset(seed=seed)
    told = suites()
    if budget not in told["budgets"]:
        raise unknown("budget", budget, told["budgets"])
    name = suite or f"{env.kind}-{'white-box' if env.knowledge == 'transfer' else env.knowledge}"
    if name not in told["suites"]:
        raise unknown("suite", name, told["suites"])
    members = [m for m in told["suites"][name] if env.threat.norm in m.get("norms", (env.threat.norm,))]
    model, whole = env.threat.model, sum(m["share"] for m in members)
    slopes = model.gradients if "white-box" in name else 0
    purse = min(propagations or told["budgets"][budget], model.queries + slopes)
    for nth, member in enumerate(members):
        if env.done:
            break
        play(env, member, purse * member["share"] / whole, seed + 15_485_863 * nth, plain=not classes_of(obs))
    return env.reset()[0]["perturbation"]


def play(env, member: dict[str, Any], share: float, seed: int, *, plain: bool) -> None:
    """One member on the lanes that still run, until they are won or it has spent its share, in propagations."""
    entry = registry.agent(member["agent"])
    settings = {**member.get("set", {}), **(member.get("plain", {}) if plain else {})}
    units = max(int(share / member["price"]), 1)
    if member["asks"]:
        settings[member["asks"]] = units
    view = env.view(env.live, proposals=entry.proposals)
    entry.attack(Purse(view, max(int(share), 1) if member["asks"] else units), seed=seed, **settings)


@cache
def suites(path: Path = SUITES) -> dict[str, Any]:
    """The table of budgets and suites, checked.

    Raises:
        DataError: for a row that lacks something, or shares that are no shares.
    """
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    for name, members in table["suites"].items():
        for i, member in enumerate(members):
            missing = {"agent", "share", "price", "asks"} - set(member)
            if missing:
                raise DataError(f"{path.name}: member {i} of {name} lacks {', '.join(sorted(missing))}")
        total = sum(m["share"] for m in members)
        if abs(total - 1) > 1e-6:
            raise DataError(f"{path.name}: the shares of {name} add up to {total:g}, not 1")
    return table
