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
    write_report(path, results, tasks, title="Agents against tasks", defended=guarded)
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
    for name in ("matrix", "defenses", "curves", "examples", "flags", "run"):
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
