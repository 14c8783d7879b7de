"""What these tests ask to be trained anew, and what they load, is theirs alone."""

import pytest

from advgym.core import task
from advgym.lib import weights


@pytest.fixture(autouse=True)
def own_loads(monkeypatch):
    monkeypatch.setattr(weights, "_forced", set())
    monkeypatch.setattr(task, "_loaded", {})
