"""Gymnasium ids: `advgym/<domain>.<name>-v0` for the task `<domain>/<name>`."""

from __future__ import annotations

import gymnasium


def gym_id(task: str) -> str:
    """The Gymnasium id of a task.

    >>> gym_id("image/digits-linf")
    'advgym/image.digits-linf-v0'
    """
    return f"advgym/{task.replace('/', '.', 1)}-v0"


def register_id(task: str, threshold: float | None = None) -> None:
    """Register one task; entry points are strings, so nothing heavy is imported.

    Args:
        threshold: the mean return of a baseline, where it was measured.
    """
    identity = gym_id(task)
    if identity not in gymnasium.registry:
        gymnasium.register(
            id=identity,
            entry_point="advgym.clients.single:make_single",
            vector_entry_point="advgym.clients.views:make_vector",
            kwargs={"task": task},
            reward_threshold=threshold,
            # The budget ends an episode by `terminated`, and a time limit would cut a larger one; a made environment's
            # spec says the most steps that its own budget allows.
            max_episode_steps=None,
        )
