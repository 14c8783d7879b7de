"""What a hidden phase draws from its secret: samples by a dataset's generator, and victims trained by the server."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from advgym import registry
from advgym.core.goals import BundleGoal
from advgym.core.task import Task, load_victim, make_task
from advgym.core.victim import Victim
from advgym.errors import AdvgymError, DataError
from advgym.leaderboards.rules import commitments
from advgym.leaderboards.rules.board import phase_of, task_options
from advgym.leaderboards.rules.board_tables import Board, BoardTask
from advgym.leaderboards.rules.phase_cards import HiddenVictim, PhaseCard, weights_folder
from advgym.lib.drawn import SPLIT
from advgym.lib.files import write_atomic
from advgym.lib.weights import cache_in, fingerprint, weights_hash

SECRET = "secret"  # stands in a public recipe for what follows from the secret


def hidden_dataset(board: Board, phase: str, task: str, secret: bytes) -> tuple[str, str]:
    """(dataset option, split) of a task's hidden samples; the option of a generator holds a seed: never publish it."""
    about, row = phase_of(board, phase), registry.task_row(task)[1]
    if about.source != "generator":
        return about.source.removeprefix("path:"), "test"
    if not row.get("generator"):
        raise AdvgymError(f"{task} has no generator of samples, so phase {phase!r} of {board.name} cannot be hidden")
    dataset = str(row["dataset"])
    return f"{dataset}#{commitments.derive(secret, 'data', dataset)}:{about.samples}", SPLIT


def needs_victim(row: BoardTask) -> bool:
    """Whether a hidden phase trains a victim: below white-box, and wherever a victim is of one graph."""
    return row.knowledge != "white-box" or bool(registry.task_row(row.id)[1].get("transductive"))


def train_victim(row: BoardTask, root: Path, secret: bytes, dataset: str) -> Victim:
    """The victim of a hidden task, from the server's cache or trained now. Its card holds the secret seed.

    Tasks of one victim and of like knowledge share it; white-box ones, which hand out its gradients, never share one
    with the others.
    """
    about = registry.task_row(row.id)[1]
    name = str(about["victim"])
    extra: dict[str, Any] = {"seed": victim_seed(row, secret)}
    if about.get("transductive"):
        extra["dataset"] = dataset
    with cache_in(private(root)):
        return load_victim(name, **extra)


def victim_seed(row: BoardTask, secret: bytes) -> int:
    """The seed that a hidden victim is trained from."""
    name = str(registry.task_row(row.id)[1]["victim"])
    return commitments.derive(secret, "victim", name, "open" if row.knowledge == "white-box" else "closed")


def private(root: Path) -> Path:
    """The data folder, with a folder of victims that only the server's user may open."""
    (root / "victims").mkdir(parents=True, exist_ok=True)
    (root / "victims").chmod(0o700)
    return root


def public_card(card: dict[str, Any], seeds: tuple[int, ...]) -> dict[str, Any]:
    """A victim's card without what follows from the secret: seeds, and the spelling of drawn data."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items()}
        if isinstance(value, str) and "#" in value:
            return value.split("#")[0] + f"#{SECRET}"
        return SECRET if not isinstance(value, bool) and isinstance(value, int) and value in seeds else value

    found: dict[str, Any] = clean(card)
    return found


def weights_file(victim: Victim) -> str:
    """The name of a victim's file in the cache, "" for one that keeps none."""
    recipe = victim.card.get("recipe")
    name = str(victim.card.get("name", victim.name))
    return f"{name}-{fingerprint(recipe)}.safetensors" if recipe is not None else ""


def hidden_task(board: Board, card: PhaseCard, row: BoardTask, root: Path, secret: bytes) -> tuple[Task, str]:
    """(the task on a hidden phase's data with its own victim, the split). The victim's card is safe to publish.

    Raises:
        DataError: when the victim is not the one whose hash was published.
    """
    dataset, split = hidden_dataset(board, card.phase, row.id, secret)
    options = task_options(board, row)
    if not needs_victim(row):
        task = make_task(row.id, dataset=dataset, **public_parts(row, options), **options)
        return task, split_of(task, split)
    if row.id not in card.victims:
        raise DataError(f"the card of phase {card.phase!r} of {board.name} names no victim for {row.id}")
    said = card.victims[row.id]
    _fetch(said, root, board.name)
    victim = copy.copy(train_victim(row, root, secret, dataset))
    victim.card = public_card(victim.card, (victim_seed(row, secret),))
    if said.weights and victim.module is not None and weights_hash(victim.module) != said.weights:
        raise DataError(
            f"the victim of {row.id} is not the one published for phase {card.phase!r} of {board.name} (weights "
            f"{said.weights[:12]}...); another machine may train another one: fetch the published weights"
        )
    with cache_in(private(root)):  # a surrogate of the hidden graph is as secret as the graph
        parts = {**public_parts(row, options), "victim": victim}
        task = make_task(row.id, dataset=dataset, **parts, **options)
    return task, split_of(task, split)


def public_parts(row: BoardTask, options: dict[str, Any]) -> dict[str, Victim]:
    """The victim and surrogate of the task's row: hidden samples are new to them, no data to train them on.

    Empty where a victim is of one graph, so of the hidden one.
    """
    about = registry.task_row(row.id)[1]
    wanted = ("victim", "surrogate") if options.get("knowledge") == "transfer" else ("victim",)
    return {} if about.get("transductive") else {key: load_victim(str(about[key])) for key in wanted if key in about}


def split_of(task: Task, split: str) -> str:
    """The split of a phase's samples: "test" where a sample is the whole drawn graph, with no split of drawn nodes."""
    whole = isinstance(task.goal, BundleGoal) and task.goal.right_of_all is not None
    return "test" if whole and split == SPLIT and split not in task.sizes else split


def _fetch(said: HiddenVictim, root: Path, board: str) -> None:
    """Published weights of a closed phase stand in for training."""
    file = Path(said.file).name  # a card from elsewhere names no other folder
    source = weights_folder(root, board) / file
    if file and source.is_file():
        target = private(root) / "victims" / file
        if not target.is_file():
            write_atomic(target, source.read_bytes())
