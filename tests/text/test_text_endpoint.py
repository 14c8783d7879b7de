"""Models behind HTTP: what they answer, and each way in which a server misbehaves."""

import contextlib
import socket
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym.core.cached import asked_anew
from advgym.core.task import make_task
from advgym.envs.text.victims import endpoint, replies
from advgym.errors import AdvgymError, VictimError
from advgym.lib.endpoint import CostCap, Endpoint, EndpointError, Limits

sys.path.insert(0, str(Path(__file__).parent))
from endpoint_server import chat, classify, score, serving

torch.set_num_threads(1)
TEXTS = ["a good film", "a bad film", "fine and great", "dull", "awful plot"]
PROMPT = "Review: {text} Sentiment:"
SAMPLES = [("a good film", "positive"), ("a dull plot", "negative"), ("great acting", "positive")]
GROUPS = {"good": ["okay", "bad"], "dull": ["fine"], "great": ["awful"]}
FAST = {"backoff": 0.0, "retries": 2, "timeout": 5.0}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    return tmp_path


def want():
    return torch.tensor([[0.0, score(t)] for t in TEXTS])


def test_scores_come_in_batches_once_each():
    with serving() as (server, url):
        victim = endpoint.server(url, batch=2, **FAST)
        assert torch.allclose(victim([*TEXTS, TEXTS[0]]), want()[[0, 1, 2, 3, 4, 0]])
        assert torch.allclose(victim(TEXTS[::-1]), want().flip(0))
        assert sorted(len(b["texts"]) for b in server.bodies) == [1, 2, 2]
        assert victim.access == "scores" and victim.tally.rows == {"making": 5}
        with asked_anew():
            victim(TEXTS)
        assert sum(len(b["texts"]) for b in server.bodies) == 10
        assert endpoint.spent(victim)["requests"] == 6


@pytest.mark.parametrize(
    "trouble", [[503, 500], [429], ["close"], ["half", "close"], [(429, 0.01)], [(503, formatdate(0, usegmt=True))]]
)
def test_passing_failures_are_tried_again(trouble):
    with serving() as (server, url):
        server.script = list(trouble)
        assert torch.allclose(endpoint.server(url, **FAST)(TEXTS), want())
        assert len(server.bodies) == len(trouble) + 1


def test_waits_double_and_keep_to_what_the_server_asks(monkeypatch):
    slept = []
    monkeypatch.setattr("advgym.lib.endpoint.time.sleep", slept.append)
    with serving() as (server, url):
        server.script = [500, 500, (429, 7), 500]
        Endpoint(url, Limits(retries=4, backoff=0.5, most_wait=10)).post({"texts": ["a"]})
        assert slept == [0.5, 1.0, 7.0, 4.0]
        server.script = [(429, 3600)]
        with pytest.raises(EndpointError, match=r"asks for 3600 s, more than most_wait=10"):
            Endpoint(url, Limits(most_wait=10)).post({"texts": ["a"]})
        slept.clear()
        paced = Endpoint(url, Limits(rate=0.01))
        paced.post({"texts": ["a"]})
        paced.post({"texts": ["a"]})
        assert len(slept) == 1 and 90 < slept[0] <= 100


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ([500] * 3, r"answers 500: not now, 3 time\(s\).*Is the server up"),
        ([(429, 0)] * 3, "answers 429: slow down"),
        (["close"] * 3, r"cannot be asked: RemoteProtocolError"),
        (["half"] * 3, r"cannot be asked: RemoteProtocolError"),
        ([401], r"answers 401: not now.*environment variable that key_env= names"),
        ([404], "answers 404: not now.*the names of the fields"),
        ([302], "answers 302.*not followed"),
        ([b"<html>hello</html>"], r"answers no JSON: <html>hello</html>"),
        ([lambda b: {"scores": [[0, 1]]}], "1 answers to 5 texts"),
        ([lambda b: {"scores": [[0, 1]] * 9}], "9 answers to 5 texts"),
        ([lambda b: {"results": []}], r"no list 'scores' \(it has: results\).*field="),
        ([lambda b: {"scores": "none"}], "no list 'scores'"),
        ([lambda b: {"scores": [[0, 1], [0, 1, 2], *[[0, 1]] * 3]}], "3 scores to a text, 2 to others"),
        ([lambda b: {"scores": [[1.0]] * 5}], r"One score z of two classes is \[0, z\]"),
        ([lambda b: {"scores": [{"a": 1}] * 5}], "say their order, labels="),
    ],
)
def test_every_other_failure_is_named(trouble, words):
    with serving() as (server, url):
        server.script = list(trouble)
        with pytest.raises(EndpointError, match=words) as caught:
            endpoint.server(url, **FAST)(TEXTS)
        assert url in str(caught.value) and "cache=NAME@VERSION" in str(caught.value)


def test_a_server_that_is_down_is_named():
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(EndpointError, match=r"cannot be asked: ConnectError.*Is the server up"):
            endpoint.server(f"http://127.0.0.1:{taken.getsockname()[1]}", **FAST)(TEXTS)


def test_a_server_that_hangs_is_left():
    with serving() as (server, url):
        server.gate = threading.Event()
        with pytest.raises(EndpointError, match=r"did not answer within 0\.05 s, 1 time"):
            endpoint.server(url, retries=0, timeout=0.05)(TEXTS)
        server.gate.set()


def test_what_was_answered_is_kept_when_the_rest_fails(cache):
    with serving() as (server, url):
        o = {"batch": 1, "retries": 0, "concurrency": 1, "cache": "mine@1"}
        server.script = [None, None, 500]
        with pytest.raises(EndpointError, match=r"kept in .*mine@1\.sqlite and will not be asked for again"):
            endpoint.server(url, **o)(TEXTS)
        assert torch.allclose(endpoint.server(url, **o)(TEXTS), want())
        assert len(server.bodies) == 3 + 3
        endpoint.server(url, **{**o, "cache": "mine@2"})(TEXTS[:1])
        assert len(server.bodies) == 7
        victim = endpoint.server(url, **o, texts="texts", labels="a,b")  # another question is another answer
        victim(TEXTS[:1])
        assert len(server.bodies) == 8


def open_at(server, many):
    """Opens the gate as soon as so many requests wait at it, or after ten seconds."""
    for _ in range(1000):
        if server.most >= many:
            break
        time.sleep(0.01)
    server.gate.set()


def test_what_is_on_its_way_is_kept_when_another_fails(cache):
    with serving() as (server, url):
        server.answer = lambda body: classify(body) if body["texts"] != [TEXTS[0]] else {}
        victim = endpoint.server(url, batch=1, concurrency=5, cache="mine@1", retries=0)
        server.gate = threading.Event()
        threading.Thread(target=open_at, args=(server, 5)).start()
        with pytest.raises(EndpointError):
            victim(TEXTS)
        assert server.most == 5
        asked = len(server.bodies)
        assert torch.allclose(victim(TEXTS[1:]), want()[1:]) and len(server.bodies) == asked


@pytest.mark.parametrize(
    ("cap", "words", "sent"),
    [({"most_requests": 3}, "most_requests=3 is reached", 3),
     ({"most_tokens": 25}, r"most_tokens=25 is reached \(30 used\)", 3)],
)  # fmt: skip
def test_a_cap_on_the_cost_stops_and_goes_on_from_there(cache, cap, words, sent):
    with serving(chat) as (server, url):
        o = {"base": url, "prompt": PROMPT, "labels": "negative,positive", "concurrency": 1, "cache": "llm@1"}
        with pytest.raises(CostCap, match=words + r".*will not be asked for again"):
            endpoint.openai("m", **o, **cap)(TEXTS)
        assert len(server.bodies) == sent
        endpoint.openai("m", **o)(TEXTS)
        assert len(server.bodies) == 5


def test_tokens_that_nobody_counts_cannot_be_capped():
    with serving() as (_, url), pytest.raises(EndpointError, match="does not say how many tokens"):
        endpoint.server(url, most_tokens=5)(TEXTS)


# -- prompted ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("answers", ["labels", "scores"])
def test_models_that_are_prompted(api, answers, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(chat) as (server, url):
        batch = 1 if api == "chat" else 2
        victim = endpoint.openai("m", base=url + "/v1", prompt=PROMPT, labels=("negative", "positive"), api=api,
                                 answers=answers, batch=batch)  # fmt: skip
        scores = victim(TEXTS)
        assert victim.access == answers and torch.equal(scores.argmax(1), (want()[:, 1] > 0).long())
        if answers == "scores":
            z = want()[:, 1]
            assert torch.allclose(scores[:, 1], z.clamp_max(0) - 0.1) and scores.max() < 0
        assert server.paths[0] == "/v1" + endpoint.APIS[api]
        assert server.seen[0]["Authorization"] == "Bearer sk-secret" and "secret" not in repr(victim.card)
        said = [b.get("prompt") or [b["messages"][0]["content"]] for b in server.bodies]
        assert {p for part in said for p in part} == {f"Review: {t} Sentiment:" for t in TEXTS}
        assert all(b["temperature"] == 0 for b in server.bodies)


def test_the_key_is_never_told(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with serving() as (server, url):
        server.answer = lambda b: {"error": "sk-secret is wrong"}
        server.script = [b"key sk-secret is wrong"]
        with pytest.raises(EndpointError, match=r"key \*\*\* is wrong"):
            endpoint.server(url, key_env="MY_KEY")(TEXTS)
    for address in ("http://me:pw@host/", "http://host/?api_key=abc"):
        with pytest.raises(AdvgymError, match="environment variable"):
            endpoint.server(address)
    with pytest.raises(AdvgymError, match="would stand in results"):
        endpoint.openai("m", api_key="abc")


def prose(body):
    """Labels, but to texts with `dull` in them, which get a sermon."""
    text = body["messages"][-1]["content"]
    if "dull" not in text:
        return chat(body)
    return {"choices": [{"message": {"content": "As a language model I cannot say"}}]}


def test_prose_is_no_answer_and_is_said(caplog):
    with serving(prose) as (server, url):
        victim = endpoint.openai("m", base=url, prompt=PROMPT, labels="negative,positive")
        scores = victim(TEXTS)
        assert scores.isnan().all(1).tolist() == [False, False, False, True, False]
        assert victim.unanswered == 1 and "names no label" in victim.why
        assert "As a language model I cannot say" in caplog.text and len(server.bodies) == 5
        with asked_anew():
            assert victim(TEXTS).isnan().any(1).sum() == 1
        assert len(server.bodies) == 10  # each once more, not once for each half
    with serving(prose) as (_, url), pytest.raises(VictimError, match=r"answered none of the first 1 inputs.*names no"):
        endpoint.openai("m", base=url, prompt=PROMPT, labels="negative,positive")(["dull"])


def test_an_attack_goes_on_where_a_server_preaches():
    with serving(prose) as (_, url):
        victim = f"openai:m?base={url}&prompt={PROMPT.replace(' ', '+')}&labels=negative,positive"
        task = make_task(
            "text/wordswap", victim=victim, samples=SAMPLES, candidates=GROUPS, antonyms=False, edits=2, queries=8
        )
        assert task.threat.knowledge == "decision" and task.victim.name == victim
        result = advgym.attack(task, "decision-search", episodes=3)
        assert result.clean_size == 3 and len(result.samples) == 2  # the sermon is not right
        assert result.success_rate > 0


@pytest.mark.parametrize(
    ("answer", "row"),
    [
        ({"scores": [[1, 2]]}, [1.0, 2.0]),
        ([[1, 2]], [1.0, 2.0]),
        ({"scores": [{"Positive": 2, "negative": 1}]}, [1.0, 2.0]),
        ({"scores": [[{"label": "positive", "score": 2}, {"label": "negative", "score": 1}]]}, [1.0, 2.0]),
    ],
)
def test_forms_of_scores(answer, row):
    with serving(lambda body: answer) as (_, url):
        assert endpoint.server(url, labels="negative,positive")(["a"]).tolist() == [row]


def test_labels_fields_and_addresses():
    with serving(lambda b: {"out": {"y": ["Positive" if score(t) > 0 else 0 for t in b["inputs"]]}}) as (server, url):
        victim = endpoint.by_address(
            "x", source=url.removeprefix("http:") + "/do?v=2&texts=inputs&field=out.y"
            "&answers=labels&labels=negative,positive"
        )  # fmt: skip
        assert torch.equal(victim(TEXTS).argmax(1), (want()[:, 1] > 0).long()) and victim.access == "labels"
        assert server.paths[0] == "/do?v=2" and victim.card["classes"] == ["negative", "positive"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: endpoint.server("ftp://host/"), "no address of an endpoint"),
        (lambda: endpoint.server("http://host:99999/"), "no address"),
        (lambda: endpoint.server("http://host/", answers="labels"), "needs labels="),
        (lambda: endpoint.server("http://host/", answers="both"), "unknown value of option answers"),
        (lambda: endpoint.server("http://host/", labels="one"), "at least two words"),
        (lambda: endpoint.server("http://host/", labels="a,A"), "at least two words"),
        (lambda: endpoint.server("http://host/", cache="no version"), "name@version"),
        (lambda: endpoint.server("http://host/", batch=0), "batch of an endpoint"),
        (lambda: endpoint.server("http://host/", rate=-1), "rate of an endpoint"),
        (lambda: endpoint.server("http://host/", timeout=0), "timeout of an endpoint"),
        (lambda: endpoint.by_address("x", source="//host/?rate=fast"), "rate of an endpoint is a number"),
        (lambda: endpoint.by_model("x", source="m?promt=a"), "did you mean 'prompt'"),
        (lambda: endpoint.by_model("x", source="m?labels=a,b"), r"holds \{text\} once"),
        (lambda: endpoint.openai("m", prompt="{text}"), "needs labels="),
        (lambda: endpoint.openai("", prompt="{text}"), "named as its server knows it"),
        (lambda: endpoint.openai("m", prompt="{text}", labels="a,b", api="v2"), "unknown value of option api"),
        (lambda: endpoint.openai("m", prompt="{text}", labels="a,b", batch=4), "one text a request"),
        (lambda: endpoint.openai("m", prompt="{text}", labels="a,b")([("a", "b")]), "pairs of texts"),
        (lambda: endpoint.server("http://host/")(torch.zeros(2, 3)), "takes texts, not Tensor"),
    ],
)
def test_options_that_do_not_fit_are_named(make, words):
    with pytest.raises(AdvgymError, match=words):
        make()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["scores", "label", "score", "choices", "index", "message", "content", "text", "logprobs", "top_logprobs",
         "token", "logprob", "a"]), inner, max_size=4), max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(JSON, st.booleans())
def test_whatever_json_comes_is_read_or_refused_in_words(answer, labels):
    for wrapped in (answer, {"scores": [answer]}, {"scores": [[answer, answer]]}):
        with contextlib.suppress(EndpointError):
            for row in replies.rows_at(wrapped, "scores", "u"):
                found = replies.row_of(row, ("a", "b"), labels=labels, url="u")
                assert isinstance(found, str) or torch.tensor(found).isfinite().all()
    told = ({"logprobs": answer}, {"logprobs": {"content": [answer]}}, {"logprobs": {"top_logprobs": [answer]}},
            {"logprobs": {"content": [{"top_logprobs": answer}]}})  # fmt: skip
    for choice in (*told, {"message": answer}, {"message": {"content": answer}}, answer):
        for wrapped in (answer, {"choices": [choice]}, {"choices": answer}):
            with contextlib.suppress(EndpointError):
                for c in replies.choices_in(wrapped, "u"):
                    replies.scores_by_words(replies.text_of(c, "u"), ("a", "b"))
        if isinstance(choice, dict):
            with contextlib.suppress(EndpointError):
                replies.scores_by_tokens(replies.tokens_of(choice, "u"), ("a", "b"))


def test_choices_and_tokens_that_cannot_be_read():
    for answer, words in [({}, "no list 'choices'"), ({"choices": [{"index": 3}]}, "cannot be told apart")]:
        with pytest.raises(EndpointError, match=words):
            replies.choices_in(answer, "u")
    with pytest.raises(EndpointError, match="tells no log-prob"):
        replies.tokens_of({"text": "a"}, "u")
    assert replies.scores_by_tokens([("the", -1.0)], ["no", "yes"]) == "the"
    assert replies.scores_by_words("not sure", ["no", "not sure"]) == [0.0, 1.0]
