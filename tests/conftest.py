"""Shared fixtures: one thread, a cache of our own, and real data that is reported when it is missing."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="session")
def benchmark_named() -> Callable[[str], ModuleType]:
    """(its name under benchmarks/, as "core.operations") -> a benchmark as a module."""

    def load(name: str) -> ModuleType:
        folder = str(Path(__file__).parents[1])
        sys.path.insert(0, folder)
        try:
            return importlib.import_module(f"benchmarks.{name}")
        finally:
            sys.path.remove(folder)

    return load


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium for the tests of pages."""
    if not CHROMIUM.is_file():
        pytest.skip("chromium is not installed: apt-get install chromium")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with launched() as found:
        yield found
