"""A headless Chromium for the tests of pages; the fixture `browser` is in conftest.py."""

import contextlib
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"]  # fmt: skip
PATIENCE_MS = 120_000  # for a machine that does much else; what is waited for ends a wait at once


@contextlib.contextmanager
def launched():
    """The browser, closed afterwards."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=str(CHROMIUM), args=ARGS, timeout=PATIENCE_MS)
        yield found
        found.close()


def new_context(browser, **options):
    """A context whose waits are patient."""
    found = browser.new_context(**options)
    found.set_default_timeout(PATIENCE_MS)
    return found
