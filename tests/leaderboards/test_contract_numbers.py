"""Entries of before the contract had a number keep bytes and ids, turn stale once, and say what changed since."""

import hashlib

import msgspec
import pytest
import web_entries
import web_server
from store_entries import made

from advgym.judge import contract
from advgym.leaderboards.entries.entry import Entry, canonical
from advgym.leaderboards.entries.stale import stale
from advgym.leaderboards.rules.board import load
from advgym.leaderboards.rules.phase_cards import PhaseCard
from advgym.leaderboards.service import data, pages
from advgym.leaderboards.service.shelf import Shelf


def test_an_old_entry_keeps_its_bytes_and_its_id():
    raw = canonical(made()[0])
    assert b"contract" not in raw
    back = msgspec.json.decode(raw, type=Entry)
    assert canonical(back) == raw and back.id == hashlib.sha256(raw).hexdigest()[:16]
    assert contract.number(back.contract) == 1
    new = msgspec.structs.replace(back, contract=contract.CONTRACT)
    assert b'"contract":2' in canonical(new) and new.id != back.id
    assert msgspec.json.decode(canonical(new), type=Entry) == new


@pytest.mark.parametrize(
    ("said", "why"), [(msgspec.UNSET, "scored under contract 1; since then: "), (99, "does not know"), (2, "")]
)
def test_stale_says_which_rules_changed(said, why):
    board = load("image")
    entry, _ = made()
    entry = msgspec.structs.replace(entry, contract=said, board_hash=web_entries.board_hash(board), tasks=[])
    card = PhaseCard(board="image", phase="dev", board_hash="", commitment="", public_data=True)
    found = stale(entry, board, card, entry.scorer)
    assert why in found if why else not found
    if said is msgspec.UNSET:
        assert all(text in found for text in contract.CHANGES[2])


def test_every_number_says_what_it_changed():
    assert set(contract.CHANGES) == set(range(2, contract.CONTRACT + 1)) and all(contract.CHANGES.values())
    assert contract.notes(contract.CONTRACT) == contract.notes(contract.CONTRACT, True) == []
    assert contract.since(contract.CONTRACT) == [] and contract.since(1) == contract.since(msgspec.UNSET)


def test_a_page_of_old_entries(tmp_path):
    for entry, rows in web_entries.few():
        web_server.write_entry(tmp_path, msgspec.structs.replace(entry, contract=msgspec.UNSET), rows)
    shelf = Shelf(tmp_path, {"showcase": web_entries.board()})
    book = shelf.book("showcase")
    table = book.tables["dev", "attack"]
    assert all(p.rank is None and "contract 1; since then" in p.why for p in table)
    page = pages.board_page(shelf, book, "dev", "attack")
    assert "stale: scored under contract 1" in page and contract.CHANGES[2][0] not in page  # a table's line is short
    assert contract.CHANGES[2][0] in data.table_csv(table)
    p = table[0]
    assert contract.CHANGES[2][0] in pages.entry_page(shelf, book, p.id, p.entry, [])
