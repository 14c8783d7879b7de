"""Any attack of Foolbox (Rauber et al. 2017, 2020) as an agent: `foolbox:LinfPGD`."""

from __future__ import annotations

import inspect

from advgym import register_agent
from advgym.agents.shared.libraries.foreign_model import checked_settings, play
from advgym.errors import unknown
from advgym.lib.extras import need


@register_agent("foolbox", kind="field", knowledge="white-box", argument="attack")
def attack(env, *, attack, seed=0, **settings):
    """An attack of Foolbox, unmodified, under our meter; its settings are those of the library's class.

    Args:
        attack: the name of a class of `foolbox.attacks`, with or without "Attack": "LinfPGD", "HopSkipJump", "DDN".

    Attacks of a fixed size get the lane's own radius, others minimise. Attacks on labels: `foolbox-labels:NAME`.
    """
    foolbox = need("foolbox", f"foolbox:{attack}")
    base = foolbox.attacks.base
    known = {n: c for n, c in vars(foolbox.attacks).items()
             if inspect.isclass(c) and issubclass(c, base.Attack) and not inspect.isabstract(c)}  # fmt: skip
    cls = known.get(attack) or known.get(f"{attack}Attack")
    if cls is None:
        raise unknown("attack of foolbox", attack, known)
    checked_settings(f"foolbox:{attack}", cls.__init__, settings, ())
    criteria = foolbox.criteria

    def run(model, x, label):
        peer, theirs = cls(**settings), foolbox.PyTorchModel(model.eval(), bounds=model.bounds(), device=x.device)
        aim = criteria.TargetedMisclassification if model.targeted else criteria.Misclassification
        if issubclass(cls, base.FixedEpsilonAttack):
            return peer.run(theirs, x, aim(label), epsilon=model.radius)
        try:
            return peer.run(theirs, x, aim(label), early_stop=None)
        except ValueError as error:
            if "init_attack failed" not in str(error):
                raise
            return None  # it found no start: nothing to hand in

    return play(env, seed, run)
