"""`advgym.make`: from a task's name and options to a batched environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advgym.core.env import AttackEnv
from advgym.core.task import Task, make_task
from advgym.lib.extras import says_missing


@says_missing
def make(
    task: str | Task, lanes: int = 1, proposals: int | None = None, *, split: str = "test", device: Any = "cpu",
    output: str = "torch", autoreset: str = "disabled", assigned: Sequence[int] | None = None, **options: Any,
) -> AttackEnv:  # fmt: skip
    """A batched attack environment.

    Args:
        task: a name such as "image/digits-linf", or a `Task`.
        lanes: episodes that run at once (the number of `assigned` samples, where those are given).
        proposals: perturbations per lane and step, as axis 1 of every array; None for one and no such axis.
        split: which samples.
        device: of victim, samples and every tensor.
        output: "torch", or "numpy" arrays on the CPU.
        autoreset: "disabled", or "same-step" (a finished lane is dealt the next sample at once).
        assigned: ids fixed by an evaluator; then no reset deals others or refunds anything.
        options: `victim`, `samples`, `surrogate`, `dataset`, `train`, `defenses`, and the threat model's
            (`knowledge`, `goal`, `queries`, `gradients`, `least`, and the constraint's own).

    >>> env = make("image/digits-linf", lanes=2, queries=10)
    >>> obs, info = env.reset(seed=0)
    >>> obs["queries_left"]
    tensor([10, 10])
    """
    made = make_task(task, **options)
    env = AttackEnv(made, lanes, proposals, split=split, device=device, output=output, autoreset=autoreset,
                    assigned=assigned)  # fmt: skip
    if isinstance(task, str):
        beside = {"lanes": lanes, "proposals": proposals, "split": split, "device": device, "output": output}
        env._source = make, {"task": task, **beside, "autoreset": autoreset, "assigned": assigned, **options}
    return env
