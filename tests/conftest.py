"""Shared fixtures: one thread, a cache of our own, and real data that is reported when it is missing."""

import os
from pathlib import Path

import pytest
import torch
from browser import CHROMIUM, launched

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
torch.set_num_threads(1)  # two threads spin on a loaded machine


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for real data is a test of it, marked or not: CI runs those apart."""
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("realdata")


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data; the test is skipped, and reported, where there is none."""
    from advgym.lib.weights import data_dir

    found = data_dir()
    if found is None:
        pytest.skip("realdata: ADVGYM_DATA is not set")
    return found


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium for the tests of pages."""
    if not CHROMIUM.is_file():
        pytest.skip("chromium is not installed: apt-get install chromium")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with launched() as found:
        yield found
