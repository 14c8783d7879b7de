"""A task's victim held by other libraries."""

import pytest
import torch
import toy

from advgym import AdvgymError, make_task
from advgym.clients.modules import as_foolbox, as_module


def test_a_module_answers_as_the_victim_and_gives_gradients():
    task = make_task("image/digits-linf")
    batch, model = task.samples("test", [0, 1, 2]), as_module(task)
    x = batch.inputs(batch.look(batch.null()).form).clone().requires_grad_()
    scores = model(x)
    assert torch.equal(scores, task.victim(x)) and not model.training and list(model.parameters())
    (g,) = torch.autograd.grad(scores.sum(), x)
    assert g.abs().sum() > 0


def test_foolbox_plays_on_it():
    foolbox = pytest.importorskip("foolbox")
    task = make_task("image/digits-linf")
    batch = task.samples("test", list(range(32)))
    x, model = batch.inputs(batch.look(batch.null()).form), as_foolbox(task)
    assert tuple(model.bounds) == (0.0, 1.0)
    assert foolbox.accuracy(model, x, batch.labels) == pytest.approx(
        float((task.victim(x).argmax(1) == batch.labels).float().mean())
    )
    found = foolbox.attacks.LinfPGD(steps=10).run(
        model, x, foolbox.criteria.Misclassification(batch.labels), epsilon=0.3
    )
    assert (task.victim(found).argmax(1) != batch.labels).float().mean() > 0.5


def test_edits_are_no_tensors():
    with pytest.raises(AdvgymError, match="toy/edits"):
        as_module(toy.task("edits"))
