"""What a page registers is of that page alone."""

import gymnasium
import pytest

from advgym import registry

TABLES = (registry._agents, registry._defenses, registry._tasks, registry._victims, gymnasium.registry)


@pytest.fixture(autouse=True)
def kept_registry():
    """The tables of agents, defenses, tasks and victims, and Gymnasium's ids, as they were before."""
    for read in (registry.agents, registry.defenses, registry.tasks, registry.victims):
        read()  # what ships is in the tables before a page runs
    before = [dict(table) for table in TABLES]
    yield
    for table, old in zip(TABLES, before, strict=True):
        table.clear()
        table.update(old)
