"""Whose fault a failed request is: the same lanes are asked about nothing in a fresh process of the evaluator's.

An exception while a request is answered is the participant's, unless the null perturbation raises it there too.
"""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.rules.board_tables import Board

PATIENCE_S = 300.0


def same_from_nothing(
    board: Board, phase: str, root: Path | None, device: str, task: int, ids: list[int], seed: int, request: Any,
    error: Exception,
) -> bool:  # fmt: skip
    """Whether the null perturbation of these lanes raises the same exception, at the same place."""
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    kind, grad = type(request).__name__, bool(getattr(request, "grad", False))
    args = (theirs, board, phase, root, device, task, ids, seed, kind, grad)
    process = context.Process(target=_ask_nothing, args=args, daemon=True)
    process.start()
    theirs.close()
    try:
        said = ours.recv() if ours.poll(PATIENCE_S) else ""
    except EOFError:  # it died of it
        said = ""
    finally:
        process.kill()
        process.join()
        ours.close()
    return bool(said == named(error))


def named(error: BaseException) -> str:
    """Class and innermost place of an exception."""
    place, at = "", error.__traceback__
    while at is not None:
        place = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}"
        at = at.tb_next
    return f"{type(error).__name__} {place}"


def _ask_nothing(
    pipe: Any, board: Board, phase: str, root: Path | None, device: str, task: int, ids: list[int], seed: int,
    kind: str, grad: bool,
) -> None:  # fmt: skip
    from advgym.core.env import AttackEnv
    from advgym.leaderboards.runs.stage import Stage

    torch.set_num_threads(1)
    here = Stage(board, phase, root, device).tasks[task]
    try:
        env = AttackEnv(here.task, split=here.split, device=device, assigned=ids)
        env.reset(seed=seed)
        REQUESTS[kind](env, grad)
    except Exception as error:
        pipe.send(named(error))
    else:
        pipe.send("")


def _step(env: Any, grad: bool) -> None:
    p = env.threat.null()
    obs = env.step(p.requires_grad_() if grad and env.kind == "field" else p)[0]
    if grad and env.kind == "field":
        obs["surrogate"].sum().backward()


def _rank(env: Any, grad: bool) -> None:
    env.rank(env.threat.null())


def _raw(env: Any, grad: bool) -> None:
    env.victim(env.threat.apply(env.threat.null()), torch.arange(env.num_envs))


def _view(env: Any, grad: bool) -> None:
    env.view(torch.arange(env.num_envs))


REQUESTS: dict[str, Callable[[Any, bool], None]] = {
    m.Step.__name__: _step, m.Back.__name__: lambda env, grad: _step(env, True), m.Rank.__name__: _rank,
    m.Ask.__name__: _raw, m.View.__name__: _view, m.Append.__name__: _view,
}  # fmt: skip
