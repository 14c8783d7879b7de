"""What an edit view shows: lines for terminals, frames for videos, a window. The drawing is each domain's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from advgym.errors import unknown
from advgym.lib.canvas import Frame, captioned, words

if TYPE_CHECKING:
    from advgym.clients.views import EditView

MODES = ("ansi", "rgb_array")  # beside "human", where a window can be opened


def check_mode(mode: str | None) -> str | None:
    """A render mode, or an error that lists them; "human" needs a window.

    Raises:
        AdvgymError: for a mode that is none, and where no window can be opened.
    """
    from advgym.clients.window import check_window

    if mode is not None and mode not in (*MODES, "human"):
        raise unknown("render_mode", mode, (*MODES, "human"))
    if mode == "human":
        check_window()
    return mode


def modes() -> list[str]:
    """The modes that work here."""
    from advgym.clients.window import can_open

    return [*MODES, *(["human"] if can_open() else [])]


def ask(task: Any, function: Callable[..., str], *arguments: Any) -> str:
    """What a task's `show` or `line` says; one that knows the parameter `task` is given it."""
    known = inspect.signature(function).parameters
    return function(*arguments, task=task) if "task" in known else function(*arguments)


def lines(view: EditView) -> tuple[str, ...]:
    """Two lines per lane: the sample with what is changed in it, and the answers with what was spent."""
    return tuple(f"{_line(view, i, form)}\n{_answers(view, i)[0]}; {_spent(view, i)}" for i, form in _forms(view))


def frames(view: EditView) -> tuple[Frame, ...]:
    """A frame per lane, uint8 (360, 480, 3) in every task."""
    task, out = view.env._task, []
    for i, form in _forms(view):
        panel = words([(_line(view, i, form), "")]) if task.draw is None else task.draw(view.env._batch, i, form)
        said, changed = _answers(view, i)
        title = f"{task.name}, {view.env._split} {int(view.env._batch.ids[i])}"
        out.append(captioned(panel, title, said, changed, _spent(view, i)))
    return tuple(out)


def _forms(view: EditView) -> list[tuple[int, Tensor]]:
    view.env._check_ready()
    form = view.env._batch.look(view.state).form.detach()
    return [(i, form[i]) for i in range(view.num_envs)]


def _line(view: EditView, i: int, form: Tensor) -> str:
    task, batch = view.env._task, view.env._batch
    return f"sample {int(batch.ids[i])}" if task.line is None else ask(task, task.line, batch, i, form)


def _answers(view: EditView, i: int) -> tuple[str, bool]:
    """(the clean answer and the present one, whether they differ)."""
    say, last = view.env._task.goal.describe, view._last
    clean, now = view.env._now.ref[i], last["output"][i]
    before, after = say(clean), say(now)
    end = " (success)" if bool(last["success"][i]) and bool(last["valid"][i]) else ""
    return (f"answer {after}" if before == after else f"answer {before} -> {after}") + end, before != after


def _spent(view: EditView, i: int) -> str:
    """Distance, limit and queries."""
    budget, left = view.env._task.threat.queries, int(view._last["queries_left"][i])
    distance, reach = float(view._last["distance"][i]), float(view.env._batch.reach[i])
    return f"distance {distance:.3g} of at most {reach:.3g}, {budget - left} of {budget} queries"
