"""The site as `make docs` builds it: every task and agent has its page, nothing comes from another host, tables fit."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import new_context

from advgym import registry

ROOT = Path(__file__).parents[2]
SHEETS = {s["task"]: s for s in (json.loads(p.read_text()) for p in sorted((ROOT / "docs" / "sheets").glob("*.json")))}
LOADS = re.compile(
    r"""<(?:script|link|img|iframe|audio|video|source|object|embed)\b[^>]*?\b(?:src|href|data)=["']([^"']*)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site; a warning ends the build."""
    pytest.importorskip("material", reason="mkdocs-material is not installed: the docs extra")
    out = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture
def page(browser, request):
    """A page that notes its problems, by the width and the scheme it is asked for."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = new_context(browser, viewport={"width": width, "height": 900}, color_scheme=scheme)
    found = context.new_page()
    found.problems = []
    found.on("console", lambda m: found.problems.append(m.text) if m.type in ("error", "warning") else None)
    found.on("pageerror", lambda e: found.problems.append(str(e)))
    here = ("file:", "data:", "blob:")
    found.on("request", lambda r: found.problems.append(r.url) if not r.url.startswith(here) else None)
    yield found
    context.close()


def ours(entries):
    """Those that ship: other tests register some of their own."""
    return {name: entry for name, entry in entries.items() if entry.origin.startswith("advgym.")}


def test_every_task_agent_and_defense_has_its_page(site):
    pages = {str(p.relative_to(site)) for p in site.rglob("*.html")}
    assert {f"tasks/{name}.html" for name in registry.built_in_tasks()} <= pages
    assert {f"agents/{name}.html" for name in ours(registry.agents())} <= pages
    assert {f"defenses/{name}.html" for name in ours(registry.defenses())} <= pages
    assert {"api/index.html", "notebooks/own-model.html", "changelog.html", "figures.html", "security.html"} <= pages


def test_pages_of_tasks_say_what_a_player_asks(site):
    for name, sheet in SHEETS.items():
        text = (site / "tasks" / f"{name}.html").read_text()
        assert "<svg viewBox" in text or not sheet["curves"], name
        assert sheet["spaces"]["action"].split("(")[0] in text, name
        for word in ("Knowledge", "Goals", "advgym attack", "Who plays it"):
            assert word in text, (name, word)


def test_settings_of_agents_are_on_their_pages(site):
    from advgym.lib.settings import settings_of

    for name, entry in ours(registry.agents()).items():
        text = (site / "agents" / f"{name}.html").read_text()
        for setting in settings_of(entry.attack):
            assert f"<code>{setting}</code>" in text, (name, setting)


def test_nothing_is_loaded_from_another_host(site):
    for path in site.rglob("*.html"):
        for address in LOADS.findall(path.read_text()):
            assert not re.match(r"(https?:)?//", address), f"{path.relative_to(site)} loads {address}"
    for path in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)", path.read_text())
        assert not found, f"{path.relative_to(site)} loads {found}"


WIDE = (
    "figures",
    "agents",
    "defenses",
    "tasks/index",
    "agents/index",
    "contract",
    "api/threat",
    "claims",
    "text-validity",
)


@pytest.mark.parametrize("page", [(1000, "light"), (390, "dark")], indirect=True)
def test_pages_fit(page, site):
    """At 1,000 pixels no table is wider than its place; on a phone no page is."""
    wide = page.viewport_size["width"]
    for name in (*WIDE, "index", "tasks/speech/synth-keyword", "tasks/graph/sbm-edge", "notebooks/own-model"):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= wide, name
        if wide > 900:
            over = page.evaluate(
                "[...document.querySelectorAll('.md-content table, .md-content svg')].filter(t => t.scrollWidth > "
                "t.clientWidth + 1 || t.getBoundingClientRect().right > innerWidth).map(t => t.outerHTML.slice(0, 90))"
            )
            assert over == [], name
    assert page.problems == []


def test_search_works_from_a_folder(page, site):
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("HopSkipJump")
    page.locator(".md-search-result__link").first.wait_for()
    assert "hopskipjump" in page.locator(".md-search-result__link").first.get_attribute("href")
    assert page.problems == []


@pytest.mark.parametrize("page", [(1280, "dark")], indirect=True)
def test_dark_follows_the_system(page, site):
    page.goto((site / "tasks" / "image" / "digits-linf.html").as_uri())
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(v) for v in re.findall(r"\d+", ground)[:3]) < 120, ground


def test_keyboard_skips_to_the_content(page, site):
    page.goto((site / "tutorials" / "audit.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className").split()[0] == "md-skip"


# -- what the site is made from ---------------------------------------------------------------------------------------
def test_sheets_are_of_the_rows_as_they_are(benchmark_named):
    """A row that has changed since it was played: `python -m benchmarks.core.task_sheets NAME`."""
    sheets = benchmark_named("core.task_sheets")
    for name, sheet in SHEETS.items():
        assert sheet["row"] == sheets.digest_of(registry.tasks()[name]), name


def test_a_sheet_is_what_its_command_prints(benchmark_named):
    """One is played again: a figure on a page is one that comes out."""
    again = benchmark_named("core.task_sheets").sheet("image/digits-l1", {})
    kept = SHEETS["image/digits-l1"]
    assert again["spaces"] == kept["spaces"]
    for new, old in zip(again["curves"], kept["curves"], strict=True):
        assert new["agent"] == old["agent"]
        assert new["success"] == pytest.approx(old["success"], abs=0.13)  # rounding may turn a sample or two of 16


def test_claims_stand_in_the_figures():
    """Every figure of docs/claims.md, word for word; every command is a benchmark."""
    figures = " ".join((ROOT / "benchmarks" / "README.md").read_text().replace("*", "").split())
    rows = re.findall(
        r"^\| (?!claim|---)(.+?) \| (.+?) \| `(.+?)` \|$", (ROOT / "docs" / "claims.md").read_text(), re.M
    )
    assert len(rows) >= 15
    for claim, figure, command in rows:
        assert figure in figures, claim
        assert (ROOT / "benchmarks" / (command.split()[0].replace(".", "/") + ".py")).is_file(), command


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_the_notebook_runs(path, monkeypatch):
    """With nbclient, of the docs extra, in a kernel of its own; what it prints is what is kept."""
    pytest.importorskip("nbclient", reason="nbclient is not installed: the docs extra")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "gen"))
    from run_notebooks import executed

    kept = json.loads(path.read_text())
    for cell, old in zip(executed(path).cells, kept["cells"], strict=True):  # what is in the cache trains in silence
        assert {o["output_type"] for o in cell.get("outputs", [])} == {o["output_type"] for o in old.get("outputs", [])}


def test_the_parts_of_the_generator(monkeypatch):
    import doctest

    monkeypatch.syspath_prepend(str(ROOT / "docs" / "gen"))
    for name in ("site_agents", "site_doctests", "site_root"):
        pytest.importorskip("griffe")
        assert doctest.testmod(__import__(name)).failed == 0, name


def test_citation_names_this_version():
    import tomllib

    from advgym import __version__

    text = (ROOT / "CITATION.cff").read_text()
    assert f"version: {__version__}\n" in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    assert "cff-version: 1.2.0" in text
