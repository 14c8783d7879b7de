"""Any attack of Adversarial Library (Rony and Ben Ayed 2020) as an agent: `adv-lib:fmn`."""

from __future__ import annotations

import inspect
import math

from advgym import register_agent
from advgym.agents.shared.libraries.foreign_model import checked_settings, play
from advgym.errors import unknown
from advgym.lib.extras import need

NORMS = {"linf": math.inf, "l2": 2, "l1": 1, "l0": 0}
OURS = ("model", "inputs", "labels", "targeted")


@register_agent("adv-lib", kind="field", knowledge="white-box", argument="attack")
def attack(env, *, attack, seed=0, **settings):
    """An attack of Adversarial Library, unmodified, under our meter; its settings are those of the library's function.

    Args:
        attack: the name of a function of `adv_lib.attacks`: "fmn", "ddn", "apgd".

    The radius (`eps` or `ε`) and the `norm` are the task's where they are not given and the attack has them.
    """
    attacks = need("adv_lib.attacks", f"adv-lib:{attack}")
    known = {n: f for n, f in vars(attacks).items()
             if inspect.isfunction(f) and {"model", "labels"} <= set(inspect.signature(f).parameters)}  # fmt: skip
    if attack not in known:
        raise unknown("attack of adv-lib", attack, known)
    function = known[attack]
    checked_settings(f"adv-lib:{attack}", function, settings, OURS)
    has = inspect.signature(function).parameters
    norm = NORMS.get(env.threat.norm if env.kind == "field" else "", 2)

    def run(model, x, label):
        given = {"norm": norm, "eps": model.radius, "ε": model.radius, "targeted": model.targeted}
        given = {k: v for k, v in given.items() if k in has}
        return function(model.eval(), x, label, **{**given, **settings})

    return play(env, seed, run)
