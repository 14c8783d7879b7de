"""The caller's own model as a victim, of whatever library it is: `objects.toml` says which."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advgym import registry
from advgym.core.own.known import PARTS, Known, known, refuse, table, task_of_model
from advgym.core.victim import Victim, as_victim
from advgym.errors import AdvgymError, VictimError

TINY = 1e-12  # least probability whose logarithm is a score


def read_victim(model: Any, task: str, given: str = "victim") -> Victim:
    """A victim of a task from what people have.

    Args:
        model: a `Victim`; a model of transformers, alone or as (model, tokenizer | processor), or a pipeline; a Keras
            model; an `onnxruntime.InferenceSession`; an estimator of scikit-learn; a torch module or any callable.
        task: its name; models of transformers are read by its domain.
        given: the argument that errors name.

    Raises:
        AdvgymError: for an object that is no model, lacks a part, or is for another task, with what to pass.
    """
    if isinstance(model, Victim):
        return model
    part = None
    if isinstance(model, tuple):
        model, part = _pair(model, given)
    row = known(model)
    if row is None:
        _check_plain(model, given)
        return as_victim(model)
    if row.instead:
        raise refuse(row, given)
    domain = task.split("/")[0]
    if row.kind in ("pipeline", "transformers"):
        return _of_transformers(model, part, row, task, domain, given)
    if part is not None:
        raise AdvgymError(f"{given}= is {row.what} with {type(part).__name__}: a pair is of a model of transformers")
    strings = domain in table().inputs["strings"]
    if row.kind in READ and not (row.kind == "estimator" and strings):  # those go into a pipeline as they are
        return READ[row.kind](model, domain)
    if row.kind not in ("estimator", *READ):
        raise AdvgymError(f"{given}= is {row.what}, which answers nothing: pass a model, and data as samples=")
    return as_victim(model)


def _pair(model: tuple[Any, ...], given: str) -> tuple[Any, Any]:
    kinds = [row.kind if row is not None else "" for row in map(known, model)]
    if len(model) == 2 and kinds[1] == "transformers" and kinds[0] in PARTS:
        model = (model[1], model[0])
    elif len(model) != 2 or kinds[0] != "transformers" or kinds[1] not in PARTS:
        shown = ", ".join(type(m).__name__ for m in model)
        raise AdvgymError(
            f"{given}=({shown}): a pair is a model of transformers and its tokenizer or processor; any other model "
            "goes in alone, as a callable of a batch that gives scores (n, classes)"
        )
    return model[0], model[1]


def _check_plain(model: Any, given: str) -> None:
    estimator = hasattr(model, "predict_proba") or hasattr(model, "decision_function") or hasattr(model, "predict")
    if isinstance(model, type):
        raise AdvgymError(f"{given}= is the class {model.__name__}: pass an object of it, {model.__name__}(...)")
    if not callable(model) and not estimator:
        raise AdvgymError(
            f"{given}= is {type(model).__name__}, which cannot be called: pass a name, a model, or a callable of a "
            "batch that gives scores (n, classes)"
        )


# -- transformers ----------------------------------------------------------------------------------------------------
def _of_transformers(model: Any, part: Any, row: Known, task: str, domain: str, given: str) -> Victim:
    if row.kind == "pipeline":
        if str(model.task) not in table().pipelines:
            raise AdvgymError(
                f"{given}= is a pipeline for {model.task!r}, and what it does around its model would be left out. "
                f"Pipelines that are read: {', '.join(table().pipelines)}; any other goes in as a callable, such as "
                "lambda texts: [[r['score'] for r in row] for row in pipe(texts, top_k=None)]"
            )
        fits = task_of_model(model)
        part, model = model, model.model  # it holds what its domain looks for
    else:
        fits = task_of_model(model)
    if not isinstance(model, nn.Module):
        raise AdvgymError(f"{given}= is {type(model).__name__}, no PyTorch model: pass a callable that gives scores")
    if fits is None:
        raise AdvgymError(
            f"{given}= is a {type(model).__name__}, which is no classifier, recogniser or writer that is read here: "
            "pass a callable of a batch that gives scores (n, classes)"
        )
    if fits.split("/")[0] != domain or domain not in table().readers:
        raise AdvgymError(f"{given}= is a {type(model).__name__}, which is for {fits}, not for {task}: task={fits!r}")
    found: Victim = registry.load(table().readers[domain])(model, part, task)
    return found


# -- libraries of numpy ----------------------------------------------------------------------------------------------
def estimator_scores(model: Any, rows: Any) -> Tensor:
    """Scores of scikit-learn's: log-probabilities, else the decision function; a binary one d is (-d / 2, d / 2).

    Raises:
        VictimError: it has neither.
    """
    if hasattr(model, "predict_proba"):
        return torch.as_tensor(model.predict_proba(rows), dtype=torch.float64).clamp_min(TINY).log().float()
    if not hasattr(model, "decision_function"):
        raise VictimError(
            f"{type(model).__name__} has neither predict_proba nor decision_function; a classifier of labels alone "
            'goes in as Victim(model.predict, access="labels")'
        )
    found = torch.as_tensor(model.decision_function(rows), dtype=torch.float32)
    return torch.stack([-found / 2, found / 2], 1) if found.dim() == 1 else found


def _estimator(model: Any, domain: str) -> Victim:
    """An estimator of flat rows: images and clips as (n, values)."""
    _check_tensors(model, domain, "rows of numbers")
    names = [str(n) for n in getattr(model, "classes_", [])]
    plain = names == [str(i) for i in range(len(names))]

    def scores(x: Tensor) -> Tensor:
        return estimator_scores(model, x.detach().cpu().flatten(1).numpy())

    return Victim(scores, name=type(model).__name__, access="scores", card={} if plain else {"names": names})


class ChannelsLast(nn.Module):
    """A module of images (n, H, W, C), for images (n, C, H, W)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """Whatever the model answers."""
        return self.model(x.permute(0, 2, 3, 1))


def _keras(model: Any, domain: str) -> Victim:
    """A Keras model of tensors; with the torch backend it is a module, and gives gradients."""
    _check_tensors(model, domain, "tensors")
    shape = tuple(getattr(model, "input_shape", ()) or ())
    last = len(shape) == 4 and shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)
    if isinstance(model, nn.Module):
        return Victim(ChannelsLast(model) if last else model, name=str(model.name), access="gradients")

    def scores(x: Tensor) -> Any:
        return np.array(model((x.permute(0, 2, 3, 1) if last else x).detach().cpu().numpy(), training=False))

    return Victim(scores, name=str(model.name), access="scores")


def _onnx(session: Any, domain: str) -> Victim:
    """A session of one input: floats, or strings of a text task; its scores are its first output of two axes."""
    inputs = session.get_inputs()
    kind = "tensor(string)" if domain in table().inputs["strings"] else "tensor(float)"
    known_ones = {name for names in table().inputs.values() for name in names}
    if len(inputs) != 1 or inputs[0].type != kind or domain not in known_ones:
        have = ", ".join(f"{i.name} {i.type}" for i in inputs)
        raise AdvgymError(
            f"this session of onnxruntime takes {have}; read here is one input of {kind} for {domain} tasks. Any other "
            "goes in as a callable: lambda batch: session.run(None, {...})[0]"
        )
    name, shape = inputs[0].name, list(inputs[0].shape)
    most = shape[0] if shape and isinstance(shape[0], int) else 0  # rows that it takes at once, 0 for any

    def run(x: Any) -> Any:
        found = [np.asarray(v) for v in session.run(None, {name: x}) if not isinstance(v, list)]
        scores = next((v for v in found if v.ndim == 2 and v.dtype.kind == "f"), None)
        if scores is None:
            raise VictimError(
                f"the session of onnxruntime answers {', '.join(str(v.shape) for v in found) or 'lists'}; want scores "
                "(n, classes). A converted classifier of scikit-learn gives them with options={'zipmap': False}"
            )
        return scores

    def scores(x: Any) -> Any:
        if isinstance(x, Tensor):
            if len(shape) == 4 and x.dim() == 4 and shape[3] == x.shape[1] != shape[1]:
                x = x.permute(0, 2, 3, 1)
            rows = x.detach().cpu().contiguous().numpy()
        else:
            rows = np.array(list(x), dtype=object).reshape(-1, *[1] * (len(shape) - 1))
        if not most or len(rows) == most:
            return run(rows)
        parts = []
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            full = np.concatenate([part, np.repeat(part[-1:], most - len(part), 0)])
            parts.append(run(full)[: len(part)])
        return np.concatenate(parts)

    return Victim(scores, name="onnx", access="scores")


def _check_tensors(model: Any, domain: str, takes: str) -> None:
    if domain not in table().inputs["tensors"]:
        raise AdvgymError(
            f"{type(model).__name__} takes {takes}, and {domain} tasks give other inputs: pass a callable that "
            "prepares them, such as lambda texts: model(vectorise(texts))"
        )


READ = {"estimator": _estimator, "keras": _keras, "onnx": _onnx}
