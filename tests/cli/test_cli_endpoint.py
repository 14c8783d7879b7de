"""`advgym audit http://...` and `advgym attack --set victim=openai:...`, against a server made here."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "text"))
from endpoint_server import chat, serving


@pytest.fixture
def reviews(tmp_path):
    words = {"good": "positive", "fine": "positive", "bad": "negative", "awful": "negative"}
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(f"a {w} film with a plot,{label}\n" for w, label in words.items()))
    return path


def test_an_audit_of_an_address(advgym, reviews, tmp_path):
    with serving() as (server, url):
        model = f"{url}/model?labels=negative,positive"
        answer = advgym("audit", model, "--data", reviews, "--domain", "text", "--budget", "quick", "--out", tmp_path)
        assert answer.code == 0, answer.err
        assert "score knowledge" in answer.err and "robust accuracy" in answer.out
        found = json.loads((tmp_path / "audit.json").read_text())
        assert [r["knowledge"] for r in found["rows"]] == ["score", "decision"]
        assert server.bodies and {p for p in server.paths} == {"/model"}


def test_an_audit_of_an_address_that_is_down(advgym, reviews):
    with serving() as (server, url):
        server.script = [503] * 2
        answer = advgym("audit", f"{url}/model?retries=1&backoff=0", "--data", reviews, "--domain", "text")
    assert answer.code == 2 and "Traceback" not in answer.err
    assert "answers 503: not now, 2 time(s)" in answer.err and "Is the server up" in answer.err


def test_an_attack_on_a_model_that_is_prompted(advgym, reviews, tmp_path, monkeypatch):
    out = tmp_path / "r.json"
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    with serving(chat) as (server, url):
        victim = f"openai:m?base={url}&prompt=Review: {{text}}&labels=negative,positive&cache=m@1"
        args = ("attack", "text/wordswap", "--agent", "decision-search", "--set", f"victim={victim}", "--set",
                f"dataset={reviews}", "--set", "queries=20", "--episodes", 4, "--out", out)  # fmt: skip
        answer = advgym(*args)
        assert answer.code == 0, answer.err
        result = json.loads(out.read_text())
        assert result["threat"]["knowledge"] == "decision" and result["victim"]["name"].startswith("openai:m?")
        assert server.bodies[0]["messages"][0]["content"].startswith("Review: a ")
        assert advgym("verify", out).code == 0


def test_a_cap_that_is_reached_loses_nothing(advgym, reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    with serving(chat) as (server, url):
        victim = f"openai:m?base={url}&prompt=Review: {{text}}&labels=negative,positive&cache=m@1&concurrency=1"
        args = ("attack", "text/wordswap", "--agent", "decision-search", "--set", f"dataset={reviews}", "--set",
                "queries=20", "--episodes", 4)  # fmt: skip
        short = advgym(*args, "--set", f"victim={victim}&most_requests=6")
        assert short.code == 2 and "Traceback" not in short.err and len(server.bodies) == 6
        assert "most_requests=6 is reached" in short.err and "m@1.sqlite and will not be asked for again" in short.err
        first = {b["messages"][0]["content"] for b in server.bodies}  # some were second answers, which are asked anew
        assert advgym(*args, "--set", f"victim={victim}").code == 0
        rest = len(server.bodies) - 6
        assert advgym(*args, "--set", f"victim={victim.replace('m@1', 'm@2')}").code == 0
        assert len(server.bodies) - 6 - rest == rest + len(first)  # one that keeps nothing yet
