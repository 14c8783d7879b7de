"""Signing in, handing in, organising by forms: each form needs its cookie, its field and its own site."""

import re

import httpx
import pytest
import web_entries
import web_server
from fastapi.testclient import TestClient

from advgym.leaderboards.service import guard
from advgym.leaderboards.store import ledger
from advgym.leaderboards.store.record import read_rows, write_entry
from advgym.leaderboards.store.submissions import status
from advgym.leaderboards.store.tokens import find_token, list_tokens, new_token

FORMS = (
    ("/logout", {}),
    ("/me", {"where": "showcase/dev"}),
    ("/submissions/{queued}/cancel", {}),
    ("/organise/tokens", {"role": "participant", "team": "Mallory", "days": "9"}),
    ("/organise/tokens/{token}/revoke", {}),
    ("/organise/entries", {"entry": "{entry}", "footnote": "bad", "unreliable": "1"}),
)


@pytest.fixture
def site(tmp_path):
    found = web_server.few(tmp_path)
    found.ids = found.busy()
    yield found
    found.store.close()


@pytest.fixture
def client(site):
    with TestClient(site.app, follow_redirects=False) as found:
        yield found


def sign_in(client, token):
    answer = client.post("/login", data={"token": token})
    assert answer.status_code == 303
    client.cookies.set(guard.COOKIE, token)
    return answer


def field(client, path="/me"):
    return re.search(r'name="csrf" value="([0-9a-f]{64})"', client.get(path).text)[1]


def filled(site, path, form):
    known = {
        "queued": site.ids["queued"], "token": list_tokens(site.store)[0].id, "entry": web_entries.few()[0][0].id,
    }  # fmt: skip
    return path.format(**known), {k: v.format(**known) for k, v in form.items()}


def test_the_cookie_is_for_this_site_alone(site, client):
    cookie = sign_in(client, site.team).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie  # the test's server speaks plain http
    secure = TestClient(site.app, base_url="https://boards.example", follow_redirects=False)
    assert "secure" in secure.post("/login", data={"token": site.team}).headers["set-cookie"].lower()


def test_wrong_tokens_do_not_sign_in(site, client):
    worker = new_token(site.store, "worker", "")
    for token in ("", "advgym_", "x" * 500, worker):
        answer = client.post("/login", data={"token": token})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert 'role="alert"' in answer.text


def test_signed_out_visitors_are_sent_to_sign_in(client):
    for path in ("/me", "/organise"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize(("path", "form"), FORMS)
@pytest.mark.parametrize("how", ["nobody", "no field", "wrong field", "another's field", "another site"])
def test_forged_forms_change_nothing(site, client, path, form, how):
    path, form = filled(site, path, form)
    files = {"archive": ("a.tar", web_server.archive())} if path == "/me" else None
    lines, tokens = len(ledger.read(site.root)), list_tokens(site.store)
    headers = {}
    if how != "nobody":
        sign_in(client, site.boss)
        form["csrf"] = {"no field": "", "wrong field": "ab" * 32}.get(how, field(client))
    if how == "another's field":
        client.cookies.set(guard.COOKIE, new_token(site.store, "organiser", "Others"))
        tokens = list_tokens(site.store)
    if how == "another site":
        headers = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    answer = client.post(path, data=form, files=files, headers=headers)
    assert answer.status_code == (401 if how == "nobody" else 403), answer.text
    assert len(ledger.read(site.root)) == lines
    assert list_tokens(site.store) == tokens
    assert status(site.store, site.ids["queued"]).state == "queued"


def test_login_from_another_site_is_refused(site, client):
    answer = client.post("/login", data={"token": site.team}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize(("path", "form"), [f for f in FORMS if f[0].startswith("/organise")])
def test_participants_do_not_organise(site, client, path, form):
    path, form = filled(site, path, form)
    sign_in(client, site.team)
    assert client.get("/organise").status_code == 403
    assert client.post(path, data={**form, "csrf": field(client)}).status_code == 403


def test_hand_in_by_form(site, client):
    sign_in(client, site.team)
    form = {"where": "showcase/dev", "csrf": field(client)}
    answer = client.post("/me", data=form, files={"archive": ("a.tar", web_server.archive())})
    assert answer.status_code == 303
    id = answer.headers["location"].rpartition("/")[2]
    assert status(site.store, id).name == "tiny"
    assert id in client.get("/me").text
    bad = client.post("/me", data=form, files={"archive": ("a.tar", web_server.archive({"agent.py": "x"}))})
    assert bad.status_code == 400
    assert "card.toml" in bad.text
    gone = client.post(f"/submissions/{id}/cancel", data={"csrf": form["csrf"]})
    assert gone.status_code == 303
    assert status(site.store, id).state == "cancelled"


def test_teams_cancel_their_own_alone(site, client):
    sign_in(client, site.team)
    other = client.post(f"/submissions/{site.ids['queued']}/cancel", data={"csrf": field(client)})
    assert other.status_code == 400
    assert status(site.store, site.ids["queued"]).state == "queued"


def test_tokens_are_shown_once_and_can_be_ended(site, client):
    sign_in(client, site.boss)
    form = {"role": "participant", "team": "Ada & Grace", "days": "9", "csrf": field(client)}
    page = client.post("/organise/tokens", data=form).text
    text = re.search(r"<code>(advgym_[\w-]+)</code>", page)[1]
    token = find_token(site.store, text)
    assert (token.role, token.team) == ("participant", "Ada & Grace")
    assert text not in client.get("/organise").text
    assert "Ada &amp; Grace" in page
    client.post(f"/organise/tokens/{token.id}/revoke", data={"csrf": form["csrf"]})
    assert find_token(site.store, text) is None
    wrong = client.post("/organise/tokens", data={**form, "role": "king"})
    assert wrong.status_code == 400
    assert "king" in wrong.text


def test_marks_are_new_versions_in_the_ledger(site, client):
    sign_in(client, site.boss)
    old = web_entries.few()[0][0]
    form = {"entry": old.id, "footnote": "it knew the labels <b>", "unreliable": "1", "csrf": field(client)}
    page = client.post("/organise/entries", data=form)
    assert page.status_code == 200
    lines = ledger.read(site.root)
    assert [line.kind for line in lines[-2:]] == ["entry", "footnote"]
    new = lines[-1].body["entry"]
    assert lines[-1].body["supersedes"] == old.id
    shown = client.get(f"/entries/{new}").text
    assert "it knew the labels &lt;b&gt;" in shown
    assert ">unreliable<" in shown
    assert ledger.verify_chain(site.root) == []
    twice = client.post("/organise/entries", data=form)
    assert twice.status_code == 400
    assert "superseded" in twice.text
    assert client.post("/organise/entries", data={**form, "entry": new, "footnote": " "}).status_code == 400


def test_the_queue_shows_who_works(site, client):
    sign_in(client, site.boss)
    page = client.get("/organise").text
    for word in ("worker-3", "7/20", "position 1", "crashed", "Fjord", site.ids["running"]):
        assert word in page


def test_what_is_marked_stays_readable(site):
    old, rows = web_entries.few()[0]
    write_entry(site.root, old, rows)
    assert read_rows(site.root, old) == rows


@pytest.mark.parametrize("proxy", [False, True])
def test_a_forged_address_moves_no_rate_limit(site, proxy):
    """Twenty tries a minute and address: the connection's own, unless a proxy is said to stand before it."""
    with web_server.listening(site.app, proxy=proxy) as url:
        codes = [
            httpx.post(f"{url}/login", data={"token": "no"}, headers={"x-forwarded-for": f"10.0.0.{i}"}).status_code
            for i in range(25)
        ]
    assert codes[:20] == [401] * 20
    assert codes[20:] == ([401] * 5 if proxy else [429] * 5)
