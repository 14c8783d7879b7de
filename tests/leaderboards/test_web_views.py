"""What the pages show is what the record holds: ranks, cells, curves, marks, damage; strangers' text is escaped."""

import csv
import datetime as dt
import io
import re

import msgspec
import pytest
import web_entries
import web_server
from hypothesis import given
from hypothesis import strategies as st

from advgym.leaderboards.entries.entry import canonical
from advgym.leaderboards.rules.board_tables import Phase
from advgym.leaderboards.service import data, pages, show, views
from advgym.leaderboards.service.shelf import Shelf, is_open
from advgym.leaderboards.store import ledger
from advgym.leaderboards.store.record import read_rows, write_entry
from advgym.report.matrix import Cell


@pytest.fixture
def root(tmp_path):
    for entry, rows in web_entries.few():
        write_entry(tmp_path, entry, rows)
    return tmp_path


@pytest.fixture
def shelf(root):
    return Shelf(root, {"showcase": web_entries.board()})


def again(root, entry, **changes):
    """A new version of an entry, in the record."""
    rows = read_rows(root, entry)
    made = msgspec.structs.replace(entry, **changes)
    return write_entry(root, made, rows)


def test_ranking_is_the_scorers(shelf):
    from advgym.leaderboards.scoring.ranking import rank

    book = shelf.book("showcase")
    entries = [e for e in book.entries.values() if e.track == "attack"]
    assert [(p.rank, p.entry.name) for p in book.tables["dev", "attack"]] == [(r, e.name) for r, e in rank(entries)]
    assert book.tables["final", "attack"] == []
    assert {p.id for p in book.tables["dev", "attack"]} == {e.id for e in entries}


def test_book_is_read_again_when_the_ledger_grows(shelf, root):
    first = shelf.book("showcase")
    assert shelf.book("showcase") is first
    entry = next(e for e in first.entries.values() if e.track == "attack")
    new = again(root, entry, team="Newcomers")
    second = shelf.book("showcase")
    assert second is not first
    assert new in second.entries


def test_files_that_no_line_names_are_no_entries(shelf, root):
    entry = next(iter(shelf.book("showcase").entries.values()))
    stray = msgspec.structs.replace(entry, name="stray")
    (root / "entries" / "showcase" / f"{stray.id}.json").write_bytes(canonical(stray))
    book = shelf.book("showcase")
    assert stray.id not in book.entries
    assert shelf.find(stray.id) is None


def test_changed_files_are_left_out_and_said(root):
    shelf = Shelf(root, {"showcase": web_entries.board()})
    name = next(iter(shelf.book("showcase").entries))
    path = root / "entries" / "showcase" / f"{name}.json"
    path.write_bytes(path.read_bytes().replace(b'"licence":"MIT"', b'"licence":"BSD"'))
    fresh = Shelf(root, {"showcase": web_entries.board()})
    book = fresh.book("showcase")
    assert book.damaged == [f"{name}.json"]
    assert name not in book.entries
    page = pages.board_page(fresh, book, "dev", "attack")
    assert f"{name}.json" in page
    assert 'role="alert"' in page


def test_rows_that_were_changed_are_not_served(shelf, root):
    book = shelf.book("showcase")
    name = next(iter(book.entries))
    assert shelf.rows(book, name)
    path = root / "entries" / "showcase" / f"{name}.rows.json"
    path.write_bytes(path.read_bytes() + b" ")
    assert shelf.rows(book, name) is None


def test_rows_of_hidden_phases_wait_for_the_close(root):
    board = web_entries.board()
    board = msgspec.structs.replace(board, phases={"dev": Phase(samples=8, source="generator", seeds=2)})
    shelf = Shelf(root, {"showcase": board}, web_server.later)
    book = shelf.book("showcase")
    name, entry = next(iter(book.entries.items()))
    assert not book.published("dev")
    assert shelf.rows(book, name) is None
    page = pages.entry_page(shelf, book, name, entry, [])
    assert "They are shown here when it closes" in page
    assert f"{name}.rows" not in page
    web_server.write_card(root, "showcase", "dev", closed="2026-11-19")
    book = shelf.book("showcase")
    assert book.published("dev")
    assert shelf.rows(book, name)


def test_stale_entries_are_marked_and_not_ranked(root):
    board = web_entries.board()
    other = msgspec.structs.replace(board, tasks=[msgspec.structs.replace(t, queries=1) for t in board.tasks])
    shelf = Shelf(root, {"showcase": other})
    book = shelf.book("showcase")
    table = book.tables["dev", "attack"]
    assert [p.rank for p in table] == [None] * 3
    assert all(p.why.startswith("stale: the board changed") for p in table)
    page = pages.board_page(shelf, book, "dev", "attack")
    assert page.count('<span class="chip warn">stale</span>') == 3
    assert "Not ranked" in page


@pytest.mark.parametrize(
    ("changes", "chip", "ranked"),
    [
        ({"external": True, "footnote": "from a paper"}, "external", False),
        ({"unreliable": True, "footnote": "seen the labels"}, "unreliable", False),
        ({"eligible": False, "footnote": "clean accuracy too low"}, "not eligible", False),
        ({"footnote": "trained on MNIST"}, "footnote", True),
        ({"flags": ["no better than the random control"]}, "1 flag", True),
        ({"sandbox": "unsandboxed"}, "unsandboxed", True),
        ({"origin": "baseline"}, "baseline", True),
        ({"cause": "dispute", "disputes": 1}, "lowered by a dispute", True),
    ],
)
def test_marks(shelf, root, changes, chip, ranked):
    entry = next(e for e in shelf.book("showcase").entries.values() if e.name == "evolve")
    made = again(root, entry, supersedes=entry.id, **changes)
    book = shelf.book("showcase")
    placed = next(p for p in book.tables["dev", "attack"] if p.id == made)
    assert (placed.rank is not None) == ranked
    assert entry.id not in {p.id for p in book.tables["dev", "attack"]}
    page = pages.board_page(shelf, book, "dev", "attack")
    line = page[page.index(f'href="/entries/{made}"') :]
    assert re.search(rf'<span class="chip[a-z ]*">{chip}</span>', line[: line.index("</tr>")])
    assert ("lowered by a dispute" in line[: line.index("</tr>")]) == (chip == "lowered by a dispute")
    if changes.get("footnote"):
        assert changes["footnote"] in pages.entry_page(shelf, book, made, book.entries[made], [])
    old = pages.entry_page(shelf, book, entry.id, entry, [])
    assert f'href="/entries/{made}"' in old


def test_heat_map_cells_are_the_scores(shelf):
    book = shelf.book("showcase")
    table = book.tables["dev", "attack"]
    matrix = views.heat_attack(book.board, table)
    for row, placed in zip(matrix.groups[0].rows, table, strict=True):
        assert (row.name, row.entry) == (placed.entry.name, placed.id)
        scores = {s.task: s for s in placed.entry.tasks}
        for name, cell in zip(matrix.columns, row.cells, strict=True):
            if scores[name].status == "scored":
                assert isinstance(cell, Cell)
                assert cell.rate == scores[name].success.value
            else:
                assert cell == "not attempted"
    squares = next(r for r in matrix.groups[0].rows if r.name == "squares")
    assert "not attempted" in squares.cells


def test_defense_matrix_has_attacks_and_clean_accuracy(shelf):
    book = shelf.book("showcase")
    matrix, shown = views.heat_defense(book.board, book.tables["dev", "defense"])
    assert [g.title for g in matrix.groups] == ["image/digits-linf"]
    assert [r.name for r in matrix.groups[0].rows] == ["square", "genetic"]
    scores = {s.attack: s for s in shown[0].entry.tasks}
    assert [r.cells[0].rate for r in matrix.groups[0].rows] == [scores[a].success.value for a in ("square", "genetic")]
    assert matrix.foot[0].cells == [f"{100 * scores['square'].clean_accuracy:.0f}"]


def test_curves_end_at_the_scores(shelf):
    book = shelf.book("showcase")
    table = book.tables["dev", "attack"]
    for figure in views.figures(book.board, table, "attack"):
        named = {p.entry.name: views.worst(p.entry, figure.task) for p in table}
        for line, shown, _ in figure.legend:
            score = named[line.agent]
            assert line.last == pytest.approx(score.success.value)
            assert shown == f"{100 * score.success.value:.0f}"
            assert all(low <= rate <= high for _, rate, low, high in line.points)
        assert figure.svg.startswith("<svg")


def test_page_names_every_entry_once_ranked(shelf):
    book = shelf.book("showcase")
    page = pages.board_page(shelf, book, "dev", "attack")
    for p in book.tables["dev", "attack"]:
        assert f"{100 * p.entry.headline.low:.1f}" in page
        assert f'href="/entries/{p.id}"' in page
    assert shelf.head() in page
    assert book.cards["dev"].commitment in page
    for task in book.board.tasks:
        assert task.id in page


def test_long_rankings_have_pages(shelf, monkeypatch):
    monkeypatch.setattr(views, "PER_PAGE", 2)
    book = shelf.book("showcase")
    table = book.tables["dev", "attack"]
    assert pages.page_count(book, "dev", "attack") == 2
    second = pages.board_page(shelf, book, "dev", "attack", 2)
    assert table[2].id in second
    assert table[0].id not in second
    assert 'aria-label="Pages of the ranking"' in second
    assert 'href="/boards/showcase/dev/attack"' in second


EVIL = "<script>alert(1)</script>\"'{{ 7*7 }}&"


def test_strangers_words_are_text(root):
    entry, _ = web_entries.few()[0]
    changes = {
        "name": EVIL, "team": EVIL, "title": EVIL, "licence": EVIL, "footnote": EVIL, "flags": [EVIL],
        "kind": [EVIL], "device": EVIL, "versions": {EVIL: EVIL},
    }  # fmt: skip
    made = again(root, entry, **changes)
    shelf = Shelf(root, {"showcase": msgspec.structs.replace(web_entries.board(), title=EVIL, summary=EVIL)})
    book = shelf.book("showcase")
    shows = [("t", [show.Shown(EVIL, 1, EVIL, EVIL, "", EVIL, 1, "1")])]
    for text in (
        pages.index_page(shelf), pages.board_page(shelf, book, "dev", "attack"),
        pages.entry_page(shelf, book, made, book.entries[made], shows),
    ):  # fmt: skip
        assert text.count("<script") == text.count('<script src="/static/')  # files of our own
        assert "&lt;script&gt;" in text
        assert "49" not in text.replace(made, "") or "{{ 7*7 }}" in text
        assert not re.search(r"""="[^"]*<script""", text)


def test_examples_are_drawn_once_and_kept(shelf, monkeypatch):
    book = shelf.book("showcase")
    name = next(k for k, e in book.entries.items() if e.name == "evolve")
    assert show.kept(shelf.root, name) is None
    shows = show.draw_published(shelf, book, name)
    assert {task for task, _ in shows} <= {t.id for t in book.board.tasks}
    assert all(e.fragment for _, found in shows for e in found)
    wins = sum(s.success for rs in read_rows(shelf.root, book.entries[name]).sets for s in rs.samples)
    assert (wins > 0) == bool(shows)
    monkeypatch.setattr(show, "draw_published", lambda *_: pytest.fail("drawn again"))
    pictures = show.Pictures(shelf)
    assert pictures.get(book, name) == shows
    pictures.close()


def test_dates_decide_whether_a_board_is_open():
    board = web_entries.board()
    day = dt.timedelta(days=1)
    assert is_open(board, board.opens)
    assert not is_open(board, board.opens - day)
    assert not is_open(board, board.closes)


@given(st.text(max_size=30))
def test_no_cell_of_the_csv_is_a_formula(text):
    cell = data.safe_cell(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert not cell.startswith(("\t", "\r"))
    assert cell.removeprefix("'") == text or cell == text


def test_csv_holds_the_table(root):
    entry, _ = web_entries.few()[0]
    again(root, entry, name="=cmd|' /C calc'!A0", team='Ada, "G"\nrace')
    shelf = Shelf(root, {"showcase": web_entries.board()})
    table = shelf.book("showcase").tables["dev", "attack"]
    rows = list(csv.DictReader(io.StringIO(data.table_csv(table))))
    assert [r["entry"] for r in rows] == [p.id for p in table]
    assert [float(r["low"]) for r in rows] == [p.entry.headline.low for p in table]
    assert any(r["name"].startswith("'=cmd") for r in rows)


@given(st.text(max_size=60))
def test_ids_from_outside_never_leave_the_index(tmp_path_factory, text):
    shelf = Shelf(tmp_path_factory.getbasetemp(), {"showcase": web_entries.board()})
    assert shelf.find(text) is None


@pytest.mark.parametrize("path", ["/", "/about", "/boards/a", "/boards/a/dev/attack/2", "/entries/0123", "/api/boards"])
def test_export_links_lead_to_the_files(path):
    for other in ("/", "/static/style.css", "/entries/ffff", "/boards/b/dev/defense", "/api/ledger"):
        here = (web_server.Path("/out") / pages.file_of(path)).parent
        reached = (here / pages.exported(path)(other)).resolve()
        assert reached == web_server.Path("/out") / pages.file_of(other)


def test_head_is_the_ledgers(shelf, root):
    assert shelf.head() == ledger.read(root)[-1].hash
    assert Shelf(root / "nowhere", {}).head() == ledger.ZERO
