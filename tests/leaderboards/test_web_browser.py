"""The service in a browser: quiet, narrow, light and dark, readable without looking, usable without JavaScript."""

import pytest
import web_entries
import web_server
from browser import new_context

from advgym.leaderboards.service import guard, show, views
from advgym.leaderboards.service.shelf import Shelf
from advgym.leaderboards.store import jobs
from advgym.leaderboards.store.submissions import status


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    found = web_server.few(tmp_path_factory.mktemp("site"))
    found.ids = found.busy()
    shelf = Shelf(found.root, {"showcase": found.board})
    for id in shelf.book("showcase").entries:
        show.draw_published(shelf, shelf.book("showcase"), id)
    with web_server.listening(found.app) as url:
        found.url = url
        yield found


def paths(site):
    by = {e.name: e.id for e, _ in web_entries.few()}
    return {
        "team": views.team_path("Kestrel"), "api": "/api",
        "index": "/", "about": "/about", "board": "/boards/showcase/dev/attack",
        "defenses": "/boards/showcase/dev/defense", "empty": "/boards/showcase/final/attack",
        "entry": f"/entries/{by['evolve']}", "defense": f"/entries/{by['quantised']}", "login": "/login", "me": "/me",
        "organise": "/organise", "failed": f"/submissions/{site.ids['failed']}",
        "running": f"/submissions/{site.ids['running']}", "scored": f"/submissions/{site.ids['scored']}",
    }  # fmt: skip


NAMES = (
    "index", "about", "board", "defenses", "empty", "entry", "defense", "login", "me", "organise", "failed", "running",
    "scored", "team", "api",
)  # fmt: skip


def visit(browser, site, name, token=None, width=390, **more):
    context = new_context(browser, viewport={"width": width, "height": 844}, color_scheme="light", **more)
    token = token or (site.boss if name == "organise" else site.team)
    context.add_cookies([{"name": guard.COOKIE, "value": token, "url": site.url}])
    page = context.new_page()
    page.problems = []
    page.on("console", lambda m: page.problems.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: page.problems.append(str(e)))
    page.on("request", lambda r: None if r.url.startswith((site.url, "data:")) else page.problems.append(r.url))
    answer = page.goto(site.url + paths(site)[name], wait_until="load")
    assert answer.status == 200
    return page


@pytest.mark.parametrize("name", NAMES)
def test_quiet_narrow_and_readable_in_light_and_dark(browser, site, name):
    page = visit(browser, site, name)
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
    bad = page.evaluate(
        """() => ({
        img: [...document.images].filter(i => !i.alt).length,
        audio: [...document.querySelectorAll('audio')].filter(a => !a.controls || !a.ariaLabel).length,
        svg: [...document.querySelectorAll('svg:not([aria-hidden=true])')].filter(s => !s.ariaLabel).length,
        table: [...document.querySelectorAll('table')].filter(t => !t.caption).length,
        th: [...document.querySelectorAll('th')].filter(t => !t.scope).length,
        ids: document.querySelectorAll('[id]').length
            - new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size,
        h1: document.querySelectorAll('h1').length - 1,
        main: document.querySelectorAll('main').length - 1,
        lang: document.documentElement.lang === 'en' ? 0 : 1,
        scroll: [...document.querySelectorAll('.scroll')].filter(s => s.tabIndex !== 0 || !s.ariaLabel).length,
        nav: [...document.querySelectorAll('nav')].filter(n => !n.ariaLabel).length,
        links: [...document.querySelectorAll('a')].filter(a => !a.textContent.trim()).length,
        buttons: [...document.querySelectorAll('button')].filter(b => !b.textContent.trim()).length,
        fields: [...document.querySelectorAll('input:not([type=hidden]):not([hidden]), select')]
            .filter(i => !i.closest('label')).length,
        labels: [...document.querySelectorAll('[aria-labelledby]')]
            .filter(e => !document.getElementById(e.getAttribute('aria-labelledby'))).length,
        progress: [...document.querySelectorAll('progress')].filter(p => !p.ariaLabel).length,
        levels: [...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])
            .filter((n, i, all) => i && n > all[i - 1] + 1).length,
    })"""
    )
    assert bad == dict.fromkeys(bad, 0)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        check_contrast(page)
    assert page.problems == []
    page.context.close()


def luminance(colour):
    def linear(v):
        v /= 255
        return v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4

    r, g, b = (linear(v) for v in colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def check_contrast(page):
    """Every piece of text against the ground it stands on: at least 4.5 to 1."""
    seen = page.evaluate(
        """() => {
        const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        const rgba = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
                            return [...canvas.getImageData(0, 0, 1, 1).data]; };
        const over = (a, b) => a.slice(0, 3).map((v, i) => v * a[3] / 255 + b[i] * (1 - a[3] / 255));
        const ground = e => { const layers = [];
            for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
                layers.push(c); if (c[3] === 255) break; }
            return layers.reverse().reduce((below, c) => over(c, below), [255, 255, 255]); };
        const out = {};
        const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) { const e = walk.currentNode.parentElement, style = getComputedStyle(e);
            const aside = '.vh, .skip, script, noscript, svg, .fragment, option';
            if (!walk.currentNode.data.trim() || e.closest(aside) || !e.checkVisibility()) continue;
            let opacity = 1; for (let p = e; p; p = p.parentElement) opacity *= getComputedStyle(p).opacity;
            const below = ground(e), ink = rgba(style.color); ink[3] *= opacity;
            out[[over(ink, below).map(Math.round), below.map(Math.round)].join('|')] = e.outerHTML.slice(0, 90); }
        return out; }"""
    )
    assert seen
    for pair, where in seen.items():
        ink, ground = ([float(v) for v in part.split(",")] for part in pair.split("|"))
        high, low = sorted((luminance(ink), luminance(ground)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (pair, where)


def test_keyboard_goes_through_the_board(browser, site):
    page = visit(browser, site, "board", width=1280)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached, rings = set(), []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.className"))
        rings.append(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
    assert {"scroll", "/boards/showcase/dev/defense", "#matrix"} <= reached
    assert set(rings[:20]) == {"solid"}
    page.context.close()


def test_pages_work_without_javascript(browser, site):
    page = visit(browser, site, "board", java_script_enabled=False)
    page.get_by_role("navigation", name="Tracks").get_by_role("link", name="defense").click()
    assert page.url.endswith("/dev/defense")
    page.locator(".ranks a").first.click()
    assert "/entries/" in page.url
    page.context.close()


def test_sign_in_and_hand_in_without_javascript(browser, site, tmp_path):
    context = new_context(browser, java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{site.url}/me")
    page.get_by_label("Token").fill(site.team)
    page.get_by_role("button", name="Sign in").click()
    assert page.url == f"{site.url}/me"
    archive = tmp_path / "a.tar"
    archive.write_bytes(web_server.archive())
    page.get_by_label("Archive").set_input_files(archive)
    page.get_by_role("button", name="Hand in").click()
    assert "/submissions/" in page.url
    assert page.locator("h1").inner_text() == "tiny"
    assert "in the queue" in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="Cancel this submission").click()
    assert page.locator("[aria-current=step]").inner_text() == "cancelled"
    page.get_by_role("link", name="My submissions").click()
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{site.url}/me")
    assert page.url == f"{site.url}/login"
    context.close()


def test_organiser_marks_an_entry(browser, site):
    page = visit(browser, site, "organise", width=1280)
    by = {e.name: e.id for e, _ in web_entries.few()}
    page.get_by_label("Entry").select_option(by["control"])
    page.get_by_label("Footnote").fill("a control, never a contender")
    page.get_by_role("button", name="Mark the entry").click()
    assert "Marked" in page.get_by_role("status").inner_text()
    page.goto(f"{site.url}/boards/showcase/dev/attack")
    assert "a control, never a contender" in page.locator("#flags").inner_text()
    assert page.problems == []
    page.context.close()


def test_progress_is_live(browser, site):
    id = site.hand_in("live")
    while (job := jobs.claim(site.store, "worker-live", 600)).id != id:
        jobs.fail(site.store, job, "worker-live", "crashed", "made room")
    context = new_context(browser)
    context.add_cookies([{"name": guard.COOKIE, "value": site.team, "url": site.url}])
    page = context.new_page()
    page.goto(f"{site.url}/submissions/{id}")
    box = page.get_by_role("status")
    assert "running" in box.inner_text()
    assert jobs.heartbeat(site.store, job, "worker-live", 600, 3, 8)
    page.locator(".now p", has_text="3 of 8 shards done").wait_for()  # no eval under our own policy
    assert page.locator("progress").evaluate("p => [p.value, p.max]") == [3, 8]
    assert box.get_attribute("aria-live") == "polite"
    entry = web_entries.few()[0][0].id
    assert jobs.finish(site.store, job, "worker-live", entry)
    page.wait_for_selector(".verdict.won")
    assert page.locator(f"a[href='/entries/{entry}']").count() == 1
    assert status(site.store, id).state == "scored"
    page.wait_for_selector("script", state="detached")
    context.close()


def test_a_cell_leads_to_its_score_and_its_examples(browser, site):
    page = visit(browser, site, "board", width=1280)
    page.locator("#matrix a.cell:not([style='--h:0'])").first.click()
    assert "/entries/" in page.url
    row = page.locator("tr:target")
    assert row.count() == 1
    row.locator("th a").click()
    assert page.locator("h3:target").count() == 1
    assert page.locator("a[href$='.rows']").count() == 1
    assert page.problems == []
    page.context.close()


def test_a_ranking_is_ordered_and_narrowed_down(browser, site):
    page = visit(browser, site, "board", width=1280)
    names = lambda: page.locator("#ranking tbody tr:not(.band):visible th").all_inner_texts()  # noqa: E731
    before = names()
    head = page.locator("#ranking thead th", has_text="Entry")
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names() == sorted(before, key=str.lower)
    head.get_by_role("button").click()
    head.get_by_role("button").click()
    assert names() == before  # as it was ranked
    page.get_by_label("Filter").first.fill(before[0].split()[0])
    assert 0 < len(names()) < len(before)
    assert page.problems == []
    page.context.close()


def test_a_team_has_its_page(browser, site):
    page = visit(browser, site, "board", width=1280)
    page.get_by_role("link", name="Kestrel").first.click()
    assert page.locator("h1").inner_text() == "Kestrel"
    page.locator(".team th a").first.click()
    assert "/entries/" in page.url
    assert page.goto(site.url + "/teams/nobody-00000000").status == 404
    page.context.close()


def test_a_fresh_server_says_what_comes_next(browser, tmp_path):
    fresh = web_server.Site(tmp_path, web_entries.board())
    with web_server.listening(fresh.app) as url:
        context = new_context(browser, viewport={"width": 390, "height": 844}, color_scheme="dark")
        page = context.new_page()
        page.goto(url)
        start = page.locator("section.start")
        for word in ("advgym token new", "advgym new agent", "advgym test mine --board showcase", "advgym submit"):
            assert word in start.inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        context.close()


def test_the_api_is_described_without_another_host(site):
    import json
    import urllib.request

    read = lambda path: urllib.request.urlopen(site.url + path).read().decode()  # noqa: E731
    told = json.loads(read("/api/openapi.json"))
    page = read("/api")
    assert told["openapi"].startswith("3.")
    assert {"/api/boards", "/api/submissions", "/api/entries/{id}", "/api/ledger"} <= set(told["paths"])
    assert not any(not path.startswith("/api/") for path in told["paths"])
    for path, methods in told["paths"].items():
        assert path in page
        assert all(call.get("description") for call in methods.values()), path
    assert told["paths"]["/api/submissions"]["post"]["security"] == [{"token": []}]
    assert "security" not in told["paths"]["/api/boards"]["get"]
    assert "://" not in page.replace("http://www.w3.org", "")
