"""The README's matrix: `docs/images/matrix.png`, the first table of a demo's report with the reasons below it.

    python -m benchmarks.core.readme_matrix [--results DIR] [--to PNG]

It plays what `advgym demo` plays without defenses, or reads the results that a demo left in DIR. The picture is taken
with Chromium (playwright).
"""

import argparse
import sys
import tempfile
from pathlib import Path

from advgym import registry
from advgym.cli.demo import FULL, Run, _first_matrix, _prepare
from advgym.cli.printing import progress
from advgym.judge.results import load
from advgym.report.page import write_report

ROOT = Path(__file__).resolve().parents[2]
WIDTH, EDGE = 1120, 24


def picture(page: Path, to: Path) -> None:
    """The matrix of a report, in light colours."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        sheet = browser.new_page(viewport={"width": WIDTH, "height": 1200}, color_scheme="light")
        sheet.goto(page.resolve().as_uri())
        box = sheet.locator("#matrix").bounding_box()
        assert box is not None
        around = {"x": box["x"] - EDGE, "y": box["y"] + EDGE, "width": box["width"] + 2 * EDGE, "height": box["height"]}
        sheet.screenshot(path=str(to), full_page=True, clip=around)
        browser.close()


def played(results: Path | None, folder: Path) -> Run:
    """The attacks of a demo without defenses: played now, or read from a folder of results."""
    found, size = Run(), FULL[0]
    names = [name for name, row in registry.tasks().items() if row.get("demo")]
    with progress() as bar:
        _prepare(found, names, size, bar)
        if results is not None:
            found.results = [load(path) for path in sorted(results.glob("*--none.json"))]
        _first_matrix(found, size, bar, folder)
    return found


def main() -> int:
    """Play or read, write the page, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="the folder results/ of a demo")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images" / "matrix.png")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "index.html"
        found = played(args.results, Path(folder))
        write_report(place, found.results, found.tasks, title="Agents against tasks", missing=found.missing)
        picture(place, args.to)
    print(f"wrote {args.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
