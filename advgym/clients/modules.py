"""A task's victim as other libraries hold one: a PyTorch module, and a model of Foolbox."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from advgym.core.field import FieldBatch
from advgym.core.task import Task
from advgym.core.victim import Victim
from advgym.errors import AdvgymError
from advgym.lib.extras import need


class AsModule(nn.Module):
    """Inputs (n, *shape) in, scores (n, classes) out, with gradients where the victim has them. Nothing is metered.

    Args:
        victim: of a task that takes tensors.
    """

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim, self.inner = victim, victim.module  # inner: its parameters and its device are this module's

    def forward(self, x: Tensor) -> Tensor:
        """Scores of each row."""
        return self.victim(x)


def as_module(task: Task) -> AsModule:
    """The task's victim as a module: for torchattacks, adv-lib, and whatever takes `model(x)`.

    Raises:
        AdvgymError: where its inputs are no tensors.
    """
    _batch(task)
    return AsModule(task.victim).eval()


def as_foolbox(task: Task) -> Any:
    """The task's victim as a `foolbox.PyTorchModel` with the bounds of its samples.

    Raises:
        AdvgymError: where its inputs are no tensors, or foolbox is not installed.
    """
    foolbox = need("foolbox", "as_foolbox")
    batch = _batch(task)
    return foolbox.PyTorchModel(as_module(task), bounds=(batch.low, batch.high), device=batch.x.device)


def _batch(task: Task) -> FieldBatch:
    split = "test" if task.sizes.get("test") else "train"
    batch = task.samples(split, [0])
    if not isinstance(batch, FieldBatch):
        raise AdvgymError(f"the victim of {task.name} does not take tensors alone; image and waveform tasks have such")
    return batch
