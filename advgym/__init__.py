"""advgym: a domain-general gym for adversarial attacks.

A victim model as a Gymnasium environment, in four domains, with one step/reward contract. Names below are imported when
they are first used, so that `import advgym` costs next to nothing beyond `import gymnasium`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from advgym import _moved
from advgym.registry import (
    add_rows,
    register_agent,
    register_built_in,
    register_defense,
    register_task,
    register_victim,
)

if TYPE_CHECKING:
    from advgym.catalogue.describe import describe
    from advgym.catalogue.names import list_agents, list_defenses, list_tasks, list_victims
    from advgym.clients.check import check_vector_env
    from advgym.core.env import AttackEnv
    from advgym.core.task import Task, make_task
    from advgym.core.victim import Victim
    from advgym.errors import AdvgymError, BudgetExhausted, DataError, Malformed, VictimError
    from advgym.evaluations.audit import audit
    from advgym.evaluations.augment import augment, harden
    from advgym.factory import make
    from advgym.judge.callbacks import Callback, MLflow, TensorBoard, WandB
    from advgym.judge.results import Result
    from advgym.judge.run import attack
    from advgym.judge.verdict import verify
    from advgym.report.graphs import load_graph
    from advgym.report.written import export

__version__ = "0.1.0"

_LAZY = {
    "make": "factory", "AttackEnv": "core.env", "make_task": "core.task", "Task": "core.task", "Victim": "core.victim",
    "attack": "judge.run", "audit": "evaluations.audit", "verify": "judge.verdict", "Result": "judge.results",
    "Callback": "judge.callbacks", "MLflow": "judge.callbacks", "TensorBoard": "judge.callbacks",
    "WandB": "judge.callbacks", "export": "report.written", "load_graph": "report.graphs",
    "augment": "evaluations.augment", "harden": "evaluations.augment",
    "check_vector_env": "clients.check", "AdvgymError": "errors", "BudgetExhausted": "errors", "DataError": "errors",
    "Malformed": "errors", "VictimError": "errors", "describe": "catalogue.describe",
    "list_agents": "catalogue.names", "list_defenses": "catalogue.names", "list_tasks": "catalogue.names",
    "list_victims": "catalogue.names",
}  # fmt: skip

__all__ = [
    "AdvgymError", "AttackEnv", "BudgetExhausted", "Callback", "DataError", "MLflow", "Malformed", "Result", "Task",
    "TensorBoard", "Victim", "VictimError", "WandB", "add_rows", "attack", "audit", "augment", "check_vector_env",
    "describe", "export", "harden", "list_agents", "list_defenses", "list_tasks", "list_victims", "load_graph",
    "make", "make_task", "register_agent", "register_defense", "register_task", "register_victim", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f"advgym.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'advgym' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


_moved.install()
register_built_in()
