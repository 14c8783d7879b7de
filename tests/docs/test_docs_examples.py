"""Every Python block of the README and of docs/ runs (docs/rl.md has its own test)."""

import re
from pathlib import Path

import pytest

from advgym import registry

ROOT = Path(__file__).parents[2]
PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if p.name != "rl.md"]
MADE = re.compile(r"(?:\.\./)?(?:tasks|agents|defenses|api)/|(?:\.\./)?(?:figures|changelog|contributing|security)\.md")


def blocks() -> list:
    found = []
    for page in PAGES:
        parts = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
        if page.parent.name == "tutorials" and parts:  # its blocks follow one another
            parts = ["\n".join(parts)]
        found += [
            pytest.param(page.name, code, id=f"{page.parent.name}-{page.stem}-{i}") for i, code in enumerate(parts)
        ]
    return found


@pytest.mark.parametrize(("page", "code"), blocks())
def test_the_example_runs(page, code):
    exec(compile(code, page, "exec"), {"__name__": "example"})


def test_nothing_that_a_page_registered_is_left():
    """After the blocks above: `advgym list agents` showed the README's `my-pgd` in later tests of this process."""
    found = {**registry.agents(), **registry.defenses()}
    assert found and [name for name, entry in found.items() if entry.origin == "example"] == []


def test_links_of_the_pages_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            if page.name != "README.md" and MADE.match(target):
                continue  # a page that `make docs` makes: its strict build checks these
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
