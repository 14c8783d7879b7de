"""What defenses that drop training rows share: the victim is a training run, and a screen looks at its features."""

from __future__ import annotations

from advgym import AdvgymError, Victim
from advgym.core.kinds.retraining import Retrained, Screen


def screening(victim: Victim, task, screen: Screen, label: str) -> Victim:
    """The victim, trained on what the screen leaves of its rows.

    Raises:
        AdvgymError: for a victim that is trained already.
    """
    return victim.like(run_of(victim, task, label).screened(screen), name=f"{victim.name}+{label}")


def run_of(victim: Victim, task, label: str) -> Retrained:
    """The training run that a victim is.

    Raises:
        AdvgymError: for a victim that is trained already.
    """
    if not isinstance(victim.model, Retrained):
        raise AdvgymError(f"{task.name} offers no training run, which {label} screens; tasks named *-poison do")
    return victim.model
