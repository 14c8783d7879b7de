"""A tiny board and tiny submissions: real sandboxes, seconds in all."""

import datetime as dt

from advgym.leaderboards.rules.board_tables import Board, BoardTask, Defended, Limits, Phase, Quota, Shards
from advgym.leaderboards.store import submissions

SEARCH = """
from advgym import registry

def attack(env, *, seed):
    registry.agent("{agent}").attack(env, seed=seed)
"""
CARD = 'name = "{name}"\ntrack = "{track}"\nkind = {kind}\nknowledge = "{knowledge}"\n{more}'


def told(store, id):
    """What a team reads of a submission when the minutes in which it ended are over."""
    clock = store.clock
    store.clock = lambda: clock() + 3600
    try:
        return submissions.status(store, id)
    finally:
        store.clock = clock


GUARD = """
from advgym import registry

def defend(victim, task):
    return registry.defense("{defense}").defend(victim, task)
"""


def board(**changes) -> Board:
    """Digits, eight samples, twenty queries."""
    about = {
        "name": "tiny", "title": "tiny", "opens": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "closes": dt.datetime(2040, 1, 1, tzinfo=dt.UTC),
        "tasks": [
            BoardTask("image/digits-linf", "score", 20, constraint={"eps": "4/16"}),
            BoardTask("image/digits-pixel", "score", 20, constraint={"pixels": 8}),
        ],
        "phases": {"dev": Phase(8, "split:test", 2)},
        "shards": Shards(4, "listed"),
        "limits": Limits(cpu_s=20, wall_s=300, memory_mb=1536, processes=16, size_mb=5),
        "quota": Quota(10, 50), "defense": Defended(["noise", "square", "greedy"], 0.5),
    }  # fmt: skip
    return Board(**{**about, **changes})


def attack(folder, code=None, *, agent="square", name="mine", kind='["field"]', knowledge="score", more=""):
    """A folder with an attack: a registered one, or the code given."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    (folder / "agent.py").write_text(SEARCH.format(agent=agent) if code is None else code)
    (folder / "card.toml").write_text(CARD.format(name=name, track="attack", kind=kind, knowledge=knowledge, more=more))
    return folder


def defense(folder, code=None, *, defense="bit-depth", name="guard"):
    """A folder with a defense."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    (folder / "defense.py").write_text(GUARD.format(defense=defense) if code is None else code)
    (folder / "card.toml").write_text(f'name = "{name}"\ntrack = "defense"\n')
    return folder


def train_shortly(patch, epochs=6):
    """Hidden victims learn in a second: their recipe stays, most of its epochs are left out."""
    from advgym.envs.image.victims import recipes as victims

    real = victims.fit
    patch.setattr(victims, "fit", lambda module, x, y, recipe: real(module, x, y, {**recipe, "epochs": epochs}))
