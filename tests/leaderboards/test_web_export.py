"""The static export: every link leads to a file of it, nothing needs a server, nothing secret is in it."""

import re

import msgspec
import pytest
import web_entries
import web_server

from advgym.leaderboards.entries.entry import Entry, Rows
from advgym.leaderboards.service.export import export
from advgym.leaderboards.store import ledger


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    site = web_server.few(root)
    secret = root / "secrets" / "showcase-final.json"
    secret.parent.mkdir()
    secret.write_text('{"secret": "deadbeef"}')
    folder = tmp_path_factory.mktemp("out")
    written = export(root, {"showcase": site.board}, folder)
    assert sorted(p for p in folder.rglob("*") if p.is_file()) == sorted(written)
    return root, folder


def test_every_link_leads_to_a_file(out):
    _, folder = out
    pages = list(folder.rglob("*.html"))
    assert len(pages) == 2 + 1 + 4 + 4 + 3  # teams
    for page in pages:
        text = page.read_text()
        for link in re.findall(r'(?:href|src)="([^"]*)"', text):
            if link.startswith("data:"):
                continue
            assert not link.startswith(("/", "http")), (page, link)
            path, _, anchor = link.partition("#")
            reached = (page.parent / path).resolve() if path else page
            assert reached.is_file(), (page, link)
            if anchor:
                assert f'id="{anchor}"' in reached.read_text()


def test_nothing_needs_a_server(out):
    for page in out[1].rglob("*.html"):
        text = page.read_text()
        scripts = re.findall(r"<script[^>]*>", text)
        assert all(re.search(r'src="(?:\.\./)*static/table.js"', s) for s in scripts), page
        for word in ("<form", "/login", 'href="/'):
            assert word not in text, (page, word)


def test_data_is_the_record(out):
    root, folder = out
    assert (folder / "api" / "ledger.jsonl").read_bytes() == ledger.path(root).read_bytes()
    head = msgspec.json.decode((folder / "api" / "ledger" / "head.json").read_bytes())["head"]
    assert head["hash"] == ledger.read(root)[-1].hash
    for entry, rows in web_entries.few():
        kept = (folder / "api" / "entries" / f"{entry.id}.json").read_bytes()
        assert msgspec.json.decode(kept, type=Entry) == entry
        assert (
            msgspec.json.decode((folder / "api" / "entries" / f"{entry.id}.rows.json").read_bytes(), type=Rows) == rows
        )


def test_examples_are_in_it(out):
    entry = next(e for e, _ in web_entries.few() if e.name == "evolve")
    page = (out[1] / "entries" / f"{entry.id}.html").read_text()
    beaten = any(s.success.value > 0 for s in entry.tasks)
    assert ("<article" in page) == beaten


def test_no_secret_is_in_it(out):
    for path in out[1].rglob("*"):
        if path.is_file():
            assert b"deadbeef" not in path.read_bytes()


def test_again_gives_the_same_bytes(out, tmp_path):
    root, folder = out
    export(root, {"showcase": web_entries.board()}, tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), path
