"""Valid success on the pages: beside the headline, on narrow screens too, and only where something was measured."""

import re

import pytest
import web_entries
from browser import new_context
from test_web_browser import check_contrast

from advgym.leaderboards.service import pages
from advgym.leaderboards.service.export import export
from advgym.leaderboards.service.shelf import Shelf

TASKS = (("text/synth-wordswap", 20), ("graph/sbm-edge", 20))
PLAYER = ("importance-first", "Kestrel", "", "greedy", "Sites in the order of their importance")
GUARD = ("one-of-each", "Fjord", "merge-synonyms", "text")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A board with a task that has a bar and one that has none."""
    root, of = tmp_path_factory.mktemp("measured"), web_entries.board(TASKS)
    web_entries.fill(root, of, [PLAYER], [GUARD])
    return Shelf(root, {of.name: of})


@pytest.fixture(scope="module")
def exported(shelf, tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    export(shelf.root, shelf.boards, out)
    return out


def entry_of(shelf, name):
    return next((id, e) for id, e in shelf.book("showcase").entries.items() if e.name == name)


def test_an_entry_shows_what_was_measured(shelf):
    id, entry = entry_of(shelf, "importance-first")
    html = pages.entry_page(shelf, shelf.book("showcase"), id, entry, [])
    text, graph = entry.tasks
    assert text.valid_success and text.columns["kept"].bar == 0.58 and not graph.valid_success and graph.columns
    assert f"Valid successes alone: {100 * entry.columns['valid_success']:.1f}" in html
    for name, column in {**text.columns, **graph.columns}.items():
        assert f"<td>{name}</td>" in html and f"{column.mean:.3g}" in html
    assert f"kept: {text.columns_about['kept']}." in html
    guarded = pages.entry_page(shelf, shelf.book("showcase"), *entry_of(shelf, "one-of-each"), [])
    assert "Against valid successes alone" in guarded


def test_a_board_without_bars_has_no_column_for_them(shelf):
    book = shelf.book("showcase")
    assert "Valid success" in pages.board_page(shelf, book, "dev", "attack")
    assert "Valid robust" in pages.board_page(shelf, book, "dev", "defense")
    assert "Valid success" not in pages.board_page(shelf, book, "final", "attack")
    rows = pages.board_page(shelf, book, "dev", "attack")
    head, *lines = re.findall(r"<tr.*?</tr>", re.search(r'<table class="ranks.*?</table>', rows, re.S)[0], re.S)
    assert len({len(re.findall(r"<t[hd][ >]", line)) for line in (head, *lines)}) == 1


@pytest.mark.parametrize("track", ["attack", "defense"])
def test_it_is_seen_on_wide_and_narrow_screens(browser, shelf, exported, track):
    name = {"attack": "importance-first", "defense": "one-of-each"}[track]
    id, entry = entry_of(shelf, name)
    value = f"{100 * entry.columns['valid_success' if track == 'attack' else 'valid_robust']:.1f}"
    context = new_context(browser, color_scheme="light")
    page = context.new_page()
    for path in (f"boards/showcase/dev/{track}.html", f"entries/{id}.html"):
        page.goto((exported / path).as_uri())
        for width in (320, 390, 768, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            assert value in page.locator("body").inner_text(), (path, width)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            check_contrast(page)
    context.close()
