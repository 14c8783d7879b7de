"""The report in a browser: no errors, no sideways scrolling, both colour schemes, readable without looking."""

import pytest
import toy
from browser import new_context

from advgym import attack, registry
from advgym.report.page import write_report


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    tasks = {f"toy/{kind}": toy.task(kind) for kind in ("field", "edits")}
    tasks["toy/field"].show = lambda batch, row, form, before, after: (
        '<figure style="margin:0;width:900px"><img alt="a wide picture" width="900" src="data:,">'
        '<audio controls aria-label="a sound" src="data:,"></audio></figure>'
    )
    plays = {
        "field": ("pgd", "bim", "square", "genetic", "noise"),
        "edits": ("first-order", "greedy", "genetic", "noise"),
    }
    results = [
        attack(toy.task(kind, knowledge=registry.agent(a).knowledge), a, episodes=12)
        for kind in plays
        for a in plays[kind]
    ]
    import copy

    guarded = []
    for r in results:
        twin = copy.deepcopy(r)
        twin.defense = "adversarial-training"
        guarded.append(twin)
    path = tmp_path_factory.mktemp("page") / "index.html"
    files = {(r.agent, r.task, "none"): f"results/{r.agent}.json" for r in results}
    write_report(path, results, tasks, title="Agents against tasks", defended=guarded, files=files)
    return path


@pytest.fixture(params=["light", "dark"])
def page(browser, page_path, request):
    context = new_context(browser, viewport={"width": 390, "height": 844}, color_scheme=request.param)
    found = context.new_page()
    found.problems = []
    found.on("console", lambda m: found.problems.append(m.text) if m.type in ("error", "warning") else None)
    found.on("pageerror", lambda e: found.problems.append(str(e)))
    found.on("request", lambda r: found.problems.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    found.goto(page_path.as_uri())
    found.scheme = request.param
    yield found
    context.close()


def test_quiet_and_offline(page):
    assert page.problems == []


def test_no_sideways_scrolling_on_a_phone(page):
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_sections_and_cells(page):
    for name in ("matrix", "defenses", "curves", "examples", "cells", "flags", "run"):
        assert page.locator(f"section#{name} h2").count() == 1
    assert page.locator("#matrix tbody th[scope=row]").count() == 7
    assert page.locator("#matrix .cell:not(.none)").count() == 9
    assert page.locator("#curves figure svg[role=img]").count() == 2
    assert page.locator("#examples article").count() >= 2
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


def test_readable_without_looking(page):
    bad = page.evaluate(
        """() => ({
        img: [...document.images].filter(i => !i.alt).length,
        audio: [...document.querySelectorAll('audio')].filter(a => !a.controls).length,
        svg: [...document.querySelectorAll('svg:not([aria-hidden=true])')].filter(s => !s.ariaLabel).length,
        table: [...document.querySelectorAll('table')].filter(t => !t.caption).length,
        th: [...document.querySelectorAll('th')].filter(t => !t.scope).length,
        ids: document.querySelectorAll('[id]').length
            - new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size,
        h1: document.querySelectorAll('h1').length - 1,
        lang: document.documentElement.lang === 'en' ? 0 : 1,
        scroll: [...document.querySelectorAll('.scroll')].filter(s => s.tabIndex !== 0 || !s.ariaLabel).length,
    })"""
    )
    assert bad == dict.fromkeys(bad, 0)


def luminance(colour):
    def linear(v):
        v /= 255
        return v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4

    r, g, b = (linear(v) for v in colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_both_schemes_have_contrast(page):
    """Text on the page, and on the coolest and hottest cell: at least 4.5 to 1."""
    colours = page.evaluate(
        """() => {
        const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        const rgb = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
                           return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
        const body = getComputedStyle(document.body), out = [];
        const cell = document.querySelector('.cell:not(.none)');
        out.push([rgb(body.color), rgb(body.backgroundColor)]);
        out.push([rgb(getComputedStyle(document.querySelector('p.sub')).color), rgb(body.backgroundColor)]);
        for (const h of [0, 50, 100]) { cell.style.setProperty('--h', h);
            out.push([rgb(getComputedStyle(cell).color), rgb(getComputedStyle(cell).backgroundColor)]); }
        return out; }"""
    )
    for ink, ground in colours:
        high, low = sorted((luminance(ink), luminance(ground)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)
    dark = luminance(colours[0][1]) < 0.2
    assert dark == (page.scheme == "dark")


def test_keyboard_reaches_the_tables(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.className"))
    assert "scroll" in seen


def test_a_cell_leads_to_what_stands_behind_it(page):
    """Its result file, its command, the examples of its task, its paper."""
    links = page.locator("a.cell").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert len(links) >= 18
    assert all(page.locator(link).count() == 1 for link in set(links))
    page.locator("#matrix a.cell").first.click()
    row = page.locator(".attacks tr:target")
    assert row.locator("a", has_text="file").get_attribute("href").startswith("results/")
    row.locator("summary").click()
    assert row.locator("code").inner_text().startswith("advgym attack toy/field --agent ")
    assert row.locator(".by").count() == 1
    assert page.locator(row.locator("a", has_text="examples").get_attribute("href")).count() == 1


def test_the_csv_is_the_table(page):
    import base64
    import csv
    import io

    address = page.locator("a[download]").get_attribute("href")
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(address.partition(",")[2]).decode())))
    assert len(rows) == page.locator(".attacks tbody tr").count() == 18
    assert {r["agent"] for r in rows} == {"pgd", "bim", "square", "genetic", "noise", "first-order", "greedy"}
    assert all(0 <= float(r["low"]) <= float(r["success"]) <= float(r["high"]) <= 1 for r in rows)


def test_tables_are_ordered_and_narrowed_down(page):
    page.set_viewport_size({"width": 1280, "height": 900})
    head = page.locator(".attacks th", has_text="success")
    rates = lambda: [int(t) for t in page.locator(".attacks tbody tr:visible td:nth-of-type(4)").all_inner_texts()]  # noqa: E731
    before = rates()
    head.get_by_role("button").press("Enter")
    assert rates() == sorted(before, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").click()
    assert rates() == sorted(before)
    head.get_by_role("button").click()
    assert rates() == before
    assert head.get_attribute("aria-sort") is None
    page.get_by_label("Filter").fill("noise toy/edits")
    assert page.locator(".attacks tbody tr:visible").count() == 2
    page.get_by_role("combobox", name="defense").select_option("none")
    assert page.locator(".narrow-down output").inner_text() == "1 of 18"
    column = page.locator("#matrix thead th", has_text="field").get_by_role("button")
    column.click()
    first = page.locator("#matrix tbody").first
    assert first.locator("tr").first.get_attribute("class") == "band"  # headings stay above their rows
    shown = [
        float(v) for v in first.locator("td:nth-child(2)[data-value]").evaluate_all("t => t.map(c => c.dataset.value)")
    ]
    assert shown == sorted(shown, reverse=True)


def test_a_matrix_that_scrolls_says_so(page):
    for width in (320, 700, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        for wide in page.locator(".wide").all():
            scrolls = wide.locator(".scroll").evaluate("s => s.scrollWidth > s.clientWidth + 1")
            assert wide.locator(".hint").is_visible() or not scrolls
        if width == 1280:
            assert not page.locator("#matrix .hint").is_visible()


def test_it_reads_without_scripts(browser, page_path):
    context = new_context(browser, java_script_enabled=False)
    page = context.new_page()
    page.goto(page_path.as_uri())
    assert page.locator(".attacks tbody tr").count() == 18
    assert page.locator(".narrow-down, button").count() == 0
    context.close()
