"""Agents that ship as entries of a board: run like anyone's, marked as what they are."""

from __future__ import annotations

from pathlib import Path

import msgspec

from advgym import registry
from advgym.leaderboards.entries.card import pack, read_card
from advgym.leaderboards.entries.entry import Entry
from advgym.leaderboards.runs.evaluate import evaluate
from advgym.leaderboards.runs.shards import Runner
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.runs.worker import now
from advgym.leaderboards.sandbox import Box
from advgym.leaderboards.sandbox.workfolder import WorkFolder
from advgym.leaderboards.store import artefacts, record

CODE = '''"""{summary}"""

from advgym import registry


def attack(env, *, seed=0):
    """The agent {name!r} as it ships."""
    return registry.agent({name!r}).attack(env, seed=seed)
'''


def write_folder(name: str, folder: Path) -> None:
    """A submission that plays a registered agent."""
    agent = registry.agent(name)
    card = [f'name = "{agent.name}"', 'track = "attack"', f"kind = {list(agent.kinds)!r}".replace("'", '"'),
            f'knowledge = "{agent.knowledge}"', 'team = "advgym"', 'licence = "MIT"']  # fmt: skip
    card += [] if agent.proposals is None else [f"proposals = {agent.proposals}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.toml").write_text("\n".join(card) + "\n", encoding="utf-8")
    (folder / "agent.py").write_text(CODE.format(name=agent.name, summary=agent.summary), encoding="utf-8")


def run_baseline(stage: Stage, root: Path, name: str) -> Entry:
    """Score a registered agent and put it into the record as a baseline.

    Raises:
        Failure: where no task of the board is one for it.
    """
    with WorkFolder("baseline") as scratch:
        folder = scratch / "submission"
        write_folder(name, folder)
        artefacts.put(root, pack(folder))
        entry, rows = evaluate(Runner(stage, read_card(folder), folder, Box), created=now())
    entry = msgspec.structs.replace(entry, origin="baseline")
    record.write_entry(root, entry, rows)
    return entry
