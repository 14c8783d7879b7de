"""Tokens, rate limits, and opening the database itself."""
# ruff: noqa: F811  (fixtures are imported by name)

import subprocess
import sys

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from store_servers import clock, fresh, store, url  # noqa: F401

from advgym.errors import AdvgymError
from advgym.leaderboards.store import rates, tables, tokens
from advgym.leaderboards.store.db import open_store


def test_a_token_is_shown_once_and_kept_as_a_hash(store):
    text = tokens.new_token(store, "participant", " reds ")
    found = tokens.find_token(store, text)
    assert text.startswith("advgym_") and len(text) == 7 + 43
    assert (found.role, found.team, found.scopes) == ("participant", "reds", ("submit", "dispute", "read"))
    assert found.may("submit") and not found.may("organise")
    with store.read() as connection:
        everything = str(connection.execute(sa.select(tables.token)).all())
    assert text not in everything and text.removeprefix("advgym_") not in everything


@pytest.mark.parametrize(
    "text", ["", "advgym_", "advgym_x", "x" * 10**6, "advgym_\x00", "advgym_\ud800", "' or 1=1 --"]
)
def test_what_is_no_token_finds_nothing(store, text):
    tokens.new_token(store, "organiser", "")
    assert tokens.find_token(store, text) is None


def test_a_token_ends_at_its_time(store, clock):
    text = tokens.new_token(store, "participant", "reds", days=1)
    clock.now += 86399
    assert tokens.find_token(store, text)
    clock.now += 1
    assert tokens.find_token(store, text) is None


def test_a_revoked_token_is_dead_at_once_and_stays_in_the_list(store):
    text, other = (tokens.new_token(store, "participant", team) for team in ("reds", "blues"))
    id = tokens.find_token(store, text).id
    assert tokens.revoke_token(store, id)
    assert not tokens.revoke_token(store, id) and not tokens.revoke_token(store, "none")
    assert tokens.find_token(store, text) is None and tokens.find_token(store, other)
    assert [(t.team, t.revoked > 0) for t in sorted(tokens.list_tokens(store), key=lambda t: t.team)] == [
        ("blues", False),
        ("reds", True),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"role": "partisipant", "team": "a"}, "did you mean 'participant'"),
        ({"role": "participant", "team": ""}, "1 to 64 printable"),
        ({"role": "participant", "team": "a\nb"}, "1 to 64 printable"),
        ({"role": "participant", "team": "a" * 65}, "1 to 64 printable"),
        ({"role": "worker", "team": "", "days": 0}, "more than 0"),
        ({"role": "worker", "team": "", "days": float("nan")}, "more than 0"),
        ({"role": "worker", "team": "", "days": 1e9}, "3650"),
        ({"role": "participant", "team": "a", "scopes": ["organise"]}, "unknown scope of the role participant"),
    ],
)
def test_a_bad_token_is_refused_in_words(store, arguments, words):
    with pytest.raises(AdvgymError, match=words):
        tokens.new_token(store, **arguments)
    assert tokens.list_tokens(store) == []


def test_scopes_can_be_fewer(store):
    text = tokens.new_token(store, "participant", "reds", scopes=["read"])
    assert tokens.find_token(store, text).scopes == ("read",)


def test_a_rate_starts_anew_with_its_window(store, clock):
    clock.now = 1_800_000_000.0
    assert [rates.allow(store, "ip 1", 3, 60) for _ in range(5)] == [True] * 3 + [False] * 2
    assert rates.allow(store, "ip 2", 3, 60)
    clock.now += 60
    assert rates.allow(store, "ip 1", 3, 60)


def test_old_windows_are_forgotten(store, clock):
    rates.allow(store, "a", 3)
    clock.now += 2 * 86400
    rates.allow(store, "b", 3)
    with store.read() as connection:
        assert connection.scalars(sa.select(tables.rate.c.key)).all() == ["b"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30)), max_size=40), st.integers(1, 5))
def test_no_window_ever_lets_more_through(tmp_path_factory, steps, limit):
    now = [1_800_000_000.0]
    store = open_store(tmp_path_factory.mktemp("r") / "db", lambda: now[0])
    passed = {}
    for key, wait in steps:
        now[0] += wait
        if rates.allow(store, key, limit, 10):
            passed[key, int(now[0] // 10)] = passed.get((key, int(now[0] // 10)), 0) + 1
    store.close()
    assert all(count <= limit for count in passed.values())
    assert len(passed) == len({(k, w) for k, w in passed})


# -- the database itself ---------------------------------------------------------------------------------------------
def test_a_database_opens_again_with_what_it_held(url):
    first = open_store(url)
    text = tokens.new_token(first, "worker", "")
    first.close()
    again = open_store(url)
    assert tokens.find_token(again, text).role == "worker"
    again.close()


def test_another_schema_is_refused(url):
    store = open_store(url)
    with store.write() as connection:
        connection.execute(sa.update(tables.meta).where(tables.meta.c.key == "version").values(value="99"))
    store.close()
    with pytest.raises(AdvgymError, match="schema 99"):
        open_store(url)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("mysql://x/y", "no database 'mysql'"),
        ("://", "not a database URL"),
        ("postgresql+psycopg://u:hush@127.0.0.1:1/x", "cannot open the database"),
        ("postgresql+asyncpg://u:hush@127.0.0.1:1/x", "cannot open the database"),
    ],
)
def test_a_bad_url_is_refused_without_its_password(bad, words):
    with pytest.raises(AdvgymError, match=words) as caught:
        open_store(bad)
    assert "hush" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "db").write_bytes(b"these are the labels, not a database" * 99)
    with pytest.raises(AdvgymError, match="not a database"):
        open_store(tmp_path / "db")
    with pytest.raises(AdvgymError, match="cannot make the folder"):
        open_store(tmp_path / "db" / "x")


def test_a_write_that_fails_leaves_nothing(store):
    with pytest.raises(RuntimeError), store.write() as connection:
        connection.execute(sa.insert(tables.meta).values(key="x", value="y"))
        raise RuntimeError
    with store.read() as connection:
        assert connection.scalars(sa.select(tables.meta.c.key)).all() == ["version"]


OPENER = """
import sys
from advgym.leaderboards.store import tokens
from advgym.leaderboards.store.db import open_store
tokens.new_token(open_store(sys.argv[1]), "worker", "")
"""


def test_many_processes_may_open_a_new_database_at_once(url):
    crowd = [subprocess.Popen([sys.executable, "-c", OPENER, url], stderr=subprocess.PIPE) for _ in range(4)]
    ends = [(p.communicate(timeout=500)[1], p.returncode) for p in crowd]
    assert all(code == 0 for _, code in ends), ends
    store = open_store(url)
    assert len(tokens.list_tokens(store)) == 4
    store.close()


def test_the_command_line_does_not_load_the_database():
    code = (
        "import sys, advgym.leaderboards.rules.reasons, advgym.leaderboards.store; print('sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
