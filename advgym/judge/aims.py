"""Targets that the caller names, one per sample, checked before anything is attacked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from advgym.core.clean import CHUNK, Clean, reached
from advgym.core.task import Task
from advgym.errors import AdvgymError

Aims = Mapping[int, Any]  # sample id -> target


def read_aims(task: Task, given: Any, ids: list[int]) -> Aims | None:
    """A target for each assigned sample.

    Args:
        given: a mapping {sample id: target}, whose None is the target of all others; or one target per assigned sample
            in their order; None for none.

    Raises:
        AdvgymError: where the goal takes none, and for a target that is missing or is none of the goal's.
    """
    if given is None:
        return None
    if not task.goal.needs_target:
        raise AdvgymError(f"goal {task.goal.name!r} of {task.name} takes no targets: set goal=, as in goal='targeted'")
    if isinstance(given, Mapping):
        found = {i: given[None] for i in ids} if None in given else {}
        found |= {int(i): target for i, target in given.items() if i is not None}
        missing = [i for i in ids if i not in found]
        if missing or set(found) - set(ids):
            what, which = ("none for", missing) if missing else ("some for", sorted(set(found) - set(ids)))
            raise AdvgymError(
                f"targets has {what} {_some(which)}; want one for each of the {len(ids)} samples assigned: {_some(ids)}"
            )
    else:
        if isinstance(given, str) or not hasattr(given, "__len__") or len(given) != len(ids):
            many = len(given) if hasattr(given, "__len__") and not isinstance(given, str) else given
            raise AdvgymError(
                f"targets is one for each of the {len(ids)} samples assigned, or {{sample: target}}, not {many!r}"
            )
        found = dict(zip(ids, list(given), strict=True))
    for i, target in found.items():
        try:
            task.goal.parse_target(target)
        except AdvgymError as error:
            raise AdvgymError(f"sample {i}: {error}") from None
        except (TypeError, ValueError, RuntimeError) as error:
            raise AdvgymError(f"sample {i}: target {target!r} is none of goal {task.goal.name!r}: {error}") from None
    return found


@torch.no_grad()
def check_aims(task: Task, split: str, aims: Aims, ids: list[int], device: Any, clean: Clean) -> None:
    """Refuse targets that the victim's clean answers, and so the labels of what it has right, reach already."""
    there: list[int] = []
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        batch = task.samples(split, part, device)
        ref = task.goal.output(scores := clean.of(part)[0])
        target = torch.stack([task.goal.parse_target(aims[i]) for i in part]).to(ref.device)
        there += [i for i, yes in zip(part, reached(task.goal, batch, scores, target).tolist(), strict=True) if yes]
    if there:
        told = ", ".join(f"{i} ({aims[i]!r})" for i in there[:8]) + (" ..." if len(there) > 8 else "")
        raise AdvgymError(
            f"the target is what the victim says already, and the label, of samples {told}: name another one for them, "
            "as in targets={sample: target}"
        )


def _some(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:8])) + (" ..." if len(ids) > 8 else "")
