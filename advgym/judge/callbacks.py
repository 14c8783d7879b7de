"""Who is told how an attack goes: a base class, and ready ones for TensorBoard, MLflow and Weights & Biases."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from advgym.errors import AdvgymError

if TYPE_CHECKING:
    from advgym.judge.results import Result, Sample

log = logging.getLogger("advgym")
FIGURES = ("success_rate", "robust_accuracy", "clean_accuracy", "control_rate", "invalid_rate", "queries_mean",
           "queries_median", "gradients_mean", "distance_median", "seconds")  # fmt: skip


class Run(NamedTuple):
    """An attack that starts."""

    task: str
    agent: str
    victim: str
    episodes: int  # samples assigned
    attacked: int  # those that the victim has right
    seed: int
    split: str
    threat: dict[str, Any]
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the run: "pgd on image/digits-linf"."""
        return f"{self.agent} on {self.task}"


class Progress(NamedTuple):
    """How far an attack is, after each finished batch of lanes; over all samples so far."""

    done: int
    total: int
    successes: int
    queries: int  # spent so far, of all samples
    gradients: int

    @property
    def rate(self) -> float:
        """Successes among the samples that are done."""
        return self.successes / self.done if self.done else 0.0


class Callback:
    """Told of an attack; override what is wanted. What one raises is warned about once, and never costs the result."""

    def on_start(self, run: Run) -> None:
        """Samples are assigned and the clean pass is done."""

    def on_progress(self, progress: Progress) -> None:
        """A batch of samples is finished and judged."""

    def on_result(self, result: Result) -> None:
        """The attack is over and its file, if one was asked for, is written."""


class Calls:
    """All callbacks of one attack. One that raised is not called again.

    Raises:
        AdvgymError: for what is no callback.
    """

    def __init__(self, callbacks: Any) -> None:
        given = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
        for one in given:
            if isinstance(one, type) or not any(
                hasattr(one, name) for name in ("on_start", "on_progress", "on_result")
            ):
                raise AdvgymError(
                    f"callbacks= are objects with on_start, on_progress or on_result, such as advgym.TensorBoard(DIR), "
                    f"not {one!r}"
                )
        self.live = given

    def start(self, run: Run) -> None:
        """The attack starts."""
        self._each("on_start", run)

    def progress(self, total: int, rows: list[Sample]) -> None:
        """Some rows are there."""
        if self.live:
            spent = sum(s.queries for s in rows), sum(s.gradients for s in rows)
            self._each("on_progress", Progress(len(rows), total, sum(s.success for s in rows), *spent))

    def result(self, result: Result) -> None:
        """The attack is over."""
        self._each("on_result", result)

    def _each(self, name: str, said: Any) -> None:
        for one in list(self.live):
            try:
                getattr(one, name, lambda _: None)(said)
            except Exception as error:
                self.live.remove(one)
                kind = type(one).__name__
                log.warning("callback %s failed in %s and is left out: %s: %s", kind, name, type(error).__name__, error)


def _imported(module: str, what: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise AdvgymError(f"{what} is not installed: pip install {package}") from None


def _flat(run: Run) -> dict[str, Any]:
    """The settings of a run as names and plain values."""
    plain = {k: v for k, v in run._asdict().items() if k not in ("threat", "settings")}
    threat = {k: v for k, v in run.threat.items() if k != "constraint"} | dict(run.threat.get("constraint", {}))
    found = {**plain, **threat, **{f"agent.{k}": v for k, v in run.settings.items()}}
    return {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in found.items()}


def _figures(result: Result) -> dict[str, float]:
    return {name: float(getattr(result, name)) for name in FIGURES}


class TensorBoard(Callback):
    """Progress, the curve of success against queries, figures and flags for TensorBoard.

    Args:
        folder: of event files; each attack gets a folder in it, by agent and task.

    Raises:
        AdvgymError: where `tensorboard` is not installed.
    """

    def __init__(self, folder: str | Path = "runs") -> None:
        self.folder = Path(folder)
        self._writer = _imported("torch.utils.tensorboard", "TensorBoard", "tensorboard").SummaryWriter

    def on_start(self, run: Run) -> None:
        name = f"{run.task}-{run.agent}-{run.seed}".replace("/", "-").replace(":", "-")
        self.board, self.run = self._writer(str(self.folder / name)), run

    def on_progress(self, progress: Progress) -> None:
        for name, value in (("success", progress.rate), ("queries", progress.queries)):
            self.board.add_scalar(f"progress/{name}", value, progress.done)

    def on_result(self, result: Result) -> None:
        for queries, rate in result.curve:
            self.board.add_scalar("success by queries", rate, queries)
        for flag in result.flags:
            self.board.add_text("flags", flag)
        self.board.add_hparams(_flat(self.run), {f"result/{k}": v for k, v in _figures(result).items()}, run_name=".")
        self.board.close()


class MLflow(Callback):
    """Parameters, progress and figures of an attack as a run of MLflow, and its result file as an artifact.

    Args:
        experiment: its name; None for MLflow's own.

    Raises:
        AdvgymError: where `mlflow` is not installed.
    """

    def __init__(self, experiment: str | None = None) -> None:
        self.mlflow, self.experiment = _imported("mlflow", "MLflow", "mlflow"), experiment

    def on_start(self, run: Run) -> None:
        if self.experiment is not None:
            self.mlflow.set_experiment(self.experiment)
        self.mlflow.start_run(run_name=run.name, nested=self.mlflow.active_run() is not None)
        self.mlflow.log_params(_flat(run))

    def on_progress(self, progress: Progress) -> None:
        self.mlflow.log_metrics({"progress.success": progress.rate, "progress.queries": progress.queries},
                                step=progress.done)  # fmt: skip

    def on_result(self, result: Result) -> None:
        import msgspec

        self.mlflow.log_metrics(_figures(result))
        for queries, rate in result.curve:
            self.mlflow.log_metric("success_by_queries", rate, step=queries)
        self.mlflow.log_text("\n".join(result.flags), "flags.txt")
        self.mlflow.log_text(msgspec.json.encode(result).decode(), "result.json")
        self.mlflow.end_run()


class WandB(Callback):
    """Progress, figures and the curve of an attack as a run of Weights & Biases.

    Args:
        project: its name; init: more arguments of `wandb.init`, such as mode="offline".

    Raises:
        AdvgymError: where `wandb` is not installed.
    """

    def __init__(self, project: str = "advgym", **init: Any) -> None:
        self.wandb, self.project, self.init = _imported("wandb", "Weights & Biases", "wandb"), project, init

    def on_start(self, run: Run) -> None:
        self.run = self.wandb.init(
            project=self.project, name=run.name, config=_flat(run), reinit="create_new", **self.init
        )

    def on_progress(self, progress: Progress) -> None:
        self.run.log({"progress/success": progress.rate, "progress/queries": progress.queries, "done": progress.done})

    def on_result(self, result: Result) -> None:
        table = self.wandb.Table(columns=["queries", "success"], data=[[q, r] for q, r in result.curve])
        self.run.log({"success by queries": table})
        self.run.summary.update({**_figures(result), "flags": list(result.flags)})
        self.run.finish()
