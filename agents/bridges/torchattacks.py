"""Any attack of torchattacks (Kim 2020) as an agent: `torchattacks:PGD`."""

from __future__ import annotations

import inspect

from advgym import register_agent
from advgym.agents.shared.libraries.foreign_model import checked_settings, play
from advgym.errors import unknown
from advgym.lib.extras import need


@register_agent("torchattacks", kind="field", knowledge="white-box", argument="attack")
def attack(env, *, attack, seed=0, **settings):
    """An attack of torchattacks, unmodified, under our meter; its settings are those of the library's class.

    Args:
        attack: the name of a class: "PGD", "CW", "Square".

    `eps` is the lane's radius where it is not given; the norm of the task and of the attack are yours to match.
    """
    torchattacks = need("torchattacks", f"torchattacks:{attack}")
    known = {n: c for n, c in vars(torchattacks).items() if inspect.isclass(c) and n != "MultiAttack"}
    if attack not in known:
        raise unknown("attack of torchattacks", attack, known)
    cls = known[attack]
    checked_settings(f"torchattacks:{attack}", cls.__init__, settings, ("model",))
    sized = "eps" in inspect.signature(cls.__init__).parameters

    def run(model, x, label):
        peer = cls(model.eval(), **{**({"eps": model.radius} if sized else {}), **settings})
        if model.targeted:
            peer.set_mode_targeted_by_label(quiet=True)
        return peer(x, label)

    return play(env, seed, run)
