"""One headless Chromium for the tests of pages: `from browser import browser`."""

from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"]  # fmt: skip
PATIENCE_MS = 120_000  # for a machine that does much else; what is waited for ends a wait at once


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.is_file():
        pytest.skip("chromium is not installed: apt-get install chromium")
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with sync.sync_playwright() as play:
        found = play.chromium.launch(executable_path=str(CHROMIUM), args=ARGS, timeout=PATIENCE_MS)
        yield found
        found.close()


def new_context(browser, **options):
    """A context whose waits are patient."""
    found = browser.new_context(**options)
    found.set_default_timeout(PATIENCE_MS)
    return found
