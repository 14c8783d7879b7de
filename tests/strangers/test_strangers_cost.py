"""What an attack costs: nothing is asked twice, and everything that is asked is counted."""

import importlib
import inspect
import json

import msgspec
import pytest
import torch

from advgym import AdvgymError, Victim, attack, make, make_task, verify
from advgym.agents.shared.once import END, PATIENCE, Once, names
from advgym.core.cached import asked_anew
from advgym.judge import results
from advgym.lib import rates


def stubborn(texts):
    """Never beaten, and not constant."""
    return [[1.0, 0.001 * (len(t) % 7)] for t in texts]


FEW = {
    "victim": stubborn, "samples": [(t, 0) for t in ("good film", "a good film", "dull plot", "good dull plot")],
    "candidates": {"good": ["fine", "decent"], "dull": ["slow", "grey"], "film": ["movie"], "plot": ["story"]},
    "edits": 2,
}  # fmt: skip
SETS = (3, 3, 3, 5)  # valid sets of each text: one word of two or three may change
# Queries and different ones before searches remembered: text/wordswap as here, digits-pixel of one pixel, karate-edge.
BEFORE = {
    "hard-label": (1200, 18), "decision-search": (1200, 18), "random-search": (1200, 18), "genetic": (1200, 18),
    "joint-greedy": (36, 18), "policy": (1200, 8), "pwws": (31, 27),
}  # fmt: skip


@pytest.mark.parametrize("agent", [*BEFORE, "alzantot", "pso", "beam", "greedy", "wir", "exhaustive", "additive"])
def test_few_choices_are_asked_once(agent):
    result = attack("text/wordswap", agent, queries=300, **FEW)
    assert result.attacked == 4
    for s, most in zip(sorted(result.samples, key=lambda s: s.id), SETS, strict=True):
        assert s.queries == s.queries_distinct <= most + 3  # a probe is no set: words deleted or unknown, one each
        assert agent not in ("hard-label", "decision-search", "random-search", "genetic") or s.queries == most


@pytest.mark.parametrize(
    ("task", "agent", "options"),
    [
        *[("image/digits-pixel", a, {"pixels": 1}) for a in ("hard-label", "decision-search", "random-search")],
        *[("image/digits-pixel", a, {"pixels": 1}) for a in ("genetic", "joint-greedy")],
        *[("graph/karate-edge", a, {}) for a in ("hard-label", "decision-search", "random-search", "genetic")],
        *[("graph/karate-edge", a, {}) for a in ("joint-greedy", "rl-s2v")],
        *[("image/digits-linf", a, {"eps": "1/16"}) for a in ("square", "decision-search", "genetic")],
    ],
)
def test_small_tables_are_asked_once(task, agent, options):
    result = attack(task, agent, episodes=6, queries=300, **options)
    queries, distinct = (sum(getattr(s, name) for s in result.samples) for name in ("queries", "queries_distinct"))
    assert distinct >= 0.9 * queries > 0


def test_alone_a_lane_asks_what_it_asks_among_others():
    for agent in ("hard-label", "decision-search", "random-search", "genetic"):
        rows = [attack("graph/karate-edge", agent, episodes=4, lanes=n, queries=60).samples for n in (1, 4)]
        assert [(s.queries, s.success) for s in rows[0]] == [(s.queries, s.success) for s in rows[1]]
    rows = [attack("image/digits-linf", "square", episodes=4, lanes=n, queries=60).samples for n in (1, 4)]
    assert [(s.queries, s.success) for s in rows[0]] == [(s.queries, s.success) for s in rows[1]]


def test_memory_answers_as_the_victim_did():
    env = make("text/wordswap", lanes=2, proposals=2, queries=200, **FEW)
    env.reset(seed=0)
    asked, p = Once(env), env.threat.random(3, 2)
    first, *_ = asked.step(p)
    again, *_ = asked.step(p.flip(1))
    left = again["queries_left"]
    assert torch.equal(left, first["queries_left"]) and bool(again["evaluated"].all())
    assert torch.equal(again["objective"], first["objective"].flip(1))
    for _ in range(PATIENCE):
        asked.step(p)
    assert asked.done and not env.done and torch.equal(env.asks_left, left)


def test_names_tell_sets_apart_and_nothing_else():
    env = make("graph/karate-edge", lanes=1)
    env.reset(seed=0)
    p = env.threat.random(1, 64)
    turned = p.flip(2).flip(3)  # another order of edits, the other order of pairs
    some = (p >= 0).all(3, keepdim=True)
    assert torch.equal(names(env, p), names(env, torch.where(some.flip(2), turned, -1)))
    sets = [frozenset(frozenset(e) for e in row if e[0] >= 0) for row in p[0].tolist()]
    assert len(set(sets)) == len(names(env, p)[0].unique())
    assert int(names(env, env.threat.null().unsqueeze(1))) == END


# -- kept answers --------------------------------------------------------------------------------------------------
class Costly:
    """A callable that remembers what it was asked."""

    def __init__(self, answer):
        self.answer, self.seen = answer, []

    def __call__(self, x):
        self.seen += [row if isinstance(row, str) else tuple(row.flatten().tolist()) for row in x]
        return self.answer(x)


def liking(texts):
    return [[1.0 + 0.01 * len(t), t.count("good") + 1.0] for t in texts]


def films(many=80):
    samples = [(f"a good film number {i}", 1) for i in range(many)]
    return {"samples": samples, "candidates": {"good": ["fine", "decent"], "film": ["movie"]}, "queries": 40}


def plain(result):
    rows = [msgspec.to_builtins(s) for s in result.samples]
    return rows, result.clean_accuracy, result.control_rate, result.flags


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    return tmp_path


def test_each_distinct_text_is_asked_once(folder):
    without = Costly(liking)
    result = attack("text/wordswap", "greedy", episodes=4, victim=without, **films())
    assert len(without.seen) > len(set(without.seen)) + 70 and sum(result.asked.values()) == len(without.seen)
    for cache in (True, "toy@1"):
        model = Costly(liking)
        found = attack("text/wordswap", "greedy", episodes=4, victim=Victim(model, cache=cache), **films())
        assert plain(found) == plain(result)  # hits are charged, and say the same
        assert sum(found.asked.values()) == len(model.seen) and set(model.seen) == set(without.seen)
        again = found.asked["flags"]  # second answers are asked anew
        assert len(model.seen) - again <= len(set(model.seen)) and found.asked.get("verdict", 0) == 0
    model = Costly(liking)  # another process
    found = attack("text/wordswap", "greedy", episodes=4, victim=Victim(model, cache="toy@1"), **films())
    assert plain(found) == plain(result) and set(found.asked) == {"flags"}
    model = Costly(liking)  # another version
    found = attack("text/wordswap", "greedy", episodes=4, victim=Victim(model, cache="toy@2"), **films())
    assert set(model.seen) == set(without.seen)
    assert sorted(p.name for p in (folder / "answers").iterdir()) == ["toy@1.sqlite", "toy@2.sqlite"]


def test_images_and_recordings_are_kept_by_their_bytes(folder):
    weights = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    model = Costly(lambda x: (x.flatten(1)[:, :12] @ weights).numpy())
    samples = [(torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(i)), i % 3) for i in range(30)]
    victim = Victim(model, cache="pixels@1")
    result = attack("image/linf", "square", victim=victim, samples=samples, eps="8/255", queries=30, episodes=30)
    assert len(model.seen) == sum(result.asked.values())
    assert len(model.seen) - result.asked["flags"] <= len(set(model.seen))
    waves = [(torch.sin(torch.arange(400) * f).numpy() / 2, 0) for f in (0.1, 0.2)]
    heard = Costly(lambda x: ["one"] * len(x))
    victim = Victim(heard, cache=True)
    found = attack("speech/transcribe", "noise", victim=victim, samples=[(w, "one") for w, _ in waves], alphabet=" eno")
    assert found.clean_accuracy == 1.0 and sum(found.asked.values()) <= len(heard.seen)


def test_verify_asks_anew_and_sees_a_model_that_changed():
    says = {"changed": False}
    model = Costly(lambda texts: [[v, u] if says["changed"] else [u, v] for u, v in liking(texts)])
    task = make_task("text/wordswap", victim=Victim(model, cache=True), **films(6))
    result = attack(task, "greedy", episodes=6)
    assert verify(result, task=task) == []
    says["changed"] = True
    assert verify(result, task=task)
    with asked_anew():
        assert float(task.victim(["a good film"])[0, 0]) == 2.0
    boundary = inspect.getsource(importlib.import_module("advgym.leaderboards.boundary.guarded"))
    assert "asked_anew()" in boundary  # boards


def test_rows_that_want_a_gradient_are_asked():
    weights = torch.randn(12, 3)
    model = Costly(lambda x: x.flatten(1) @ weights)
    victim = Victim(model, access="gradients", cache=True)
    x = torch.rand(2, 3, 2, 2)
    assert torch.equal(victim(x), victim(x)) and len(model.seen) == 2
    leaf = x.clone().requires_grad_()
    assert victim(leaf).requires_grad and victim(leaf).requires_grad and len(model.seen) == 6
    with torch.no_grad():
        victim(leaf)
    assert len(model.seen) == 6


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (torch.nn.Linear(2, 2), {"cache": True}, "lambda x: model"),
        (len, {"cache": True, "keyed": True}, "draws at random"),
        (len, {"cache": True, "retrains": True}, "retrains"),
        (len, {"cache": "no-version"}, "name@version"),
        (len, {"cache": "../up@1"}, "name@version"),
        (len, {"cache": 7}, "name@version"),
    ],
)
def test_what_cannot_be_kept_is_refused(model, options, says):
    with pytest.raises(ValueError, match=says):
        Victim(model, **options)


@pytest.mark.parametrize("wrapped", ["like", "defense"])
def test_another_model_in_its_place_has_its_own_answers(wrapped):
    model = Costly(lambda x: torch.stack([x.flatten(1).sum(1), x.flatten(1)[:, 0]], 1))
    victim, x = Victim(model, cache=True), torch.rand(2, 1, 2, 2)
    first = victim(x)
    twin = victim.like(lambda x: -x.flatten(1)[:, :2]) if wrapped == "like" else victim.like(lambda x: victim(x / 2))
    assert not torch.equal(twin(x), first) and torch.equal(victim(x), first)


def test_a_damaged_file_is_named(folder):
    (folder / "answers").mkdir()
    (folder / "answers" / "toy@1.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(AdvgymError, match=r"toy@1.sqlite.*delete it"):
        Victim(liking, cache="toy@1")(["a"])


# -- the whole count -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("task", "agent", "options"),
    [
        ("image/digits-linf", "pgd", {"queries": 10, "gradients": 10}),
        ("image/digits-linf", "square", {"queries": 10}),
        ("image/digits-linf", "transfer", {"queries": 10}),
        ("text/synth-wordswap", "greedy", {"queries": 20}),
        ("graph/karate-edge", "genetic", {"queries": 20}),
    ],
)
def test_what_is_said_before_bounds_what_is_said_after(task, agent, options):
    told = []
    result = attack(task, agent, episodes=6, told=told.append, **options)
    assert set(result.asked) <= {*told[0], "making"}
    assert all(result.asked[k] <= told[0][k] for k in result.asked if k != "making"), (result.asked, told[0])
    assert result.asked["clean"] == told[0]["clean"] == result.clean_of == result.clean_size


def test_a_defense_that_draws_counts_every_draw():
    told = []
    result = attack("image/digits-linf", "noise", episodes=3, clean=5, defenses=[("smoothing", {"draws": 4})],
                    told=told.append)  # fmt: skip
    assert result.asked["clean"] == told[0]["clean"] == 20 and result.asked["verdict"] <= told[0]["verdict"]


# -- clean accuracy over some samples ------------------------------------------------------------------------------
def test_clean_accuracy_over_some_samples(tmp_path):
    path = tmp_path / "r.json"
    result = attack("image/digits-linf", "noise", episodes=8, clean=50, out=path)
    whole = attack("image/digits-linf", "noise", episodes=8)
    assert result.clean_of == result.asked["clean"] == 50 and whole.clean_of == whole.clean_size == result.clean_size
    assert [s.id for s in result.samples] == [s.id for s in whole.samples]
    assert result.clean_ci == rates.wilson(round(50 * result.clean_accuracy), 50)
    assert verify(path) == []
    for wrong in ({"clean_accuracy": 0.5}, {"clean_of": 60}, {"clean_ci": (0.1, 0.2)}):
        assert verify(msgspec.structs.replace(result, **wrong))
    with pytest.raises(AdvgymError, match="clean_of is 3"):
        verify(msgspec.structs.replace(result, clean_of=3))
    with pytest.raises(AdvgymError, match="8 assigned samples at least"):
        attack("image/digits-linf", "noise", episodes=8, clean=7)


def test_files_from_before_load_and_mean_the_whole_split(tmp_path):
    path = tmp_path / "r.json"
    attack("image/digits-linf", "noise", episodes=3, out=path)
    raw = json.loads(path.read_text())
    for name in ("clean_of", "clean_size", "clean_ci", "asked"):
        raw.pop(name)
    path.write_text(json.dumps(raw))
    assert results.load(path).clean_of is None and verify(path) == []


def test_the_command_line_says_both(tmp_path, capsys):
    from advgym.cli.attack import print_result, say_most

    told = []
    result = attack("image/digits-linf", "noise", episodes=3, clean=20, told=told.append)
    say_most(told[0])
    assert f"at most {sum(told[0].values()):,} inputs: clean 20" in capsys.readouterr().err.replace("\n", " ")
    print_result(result)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"(over 20 of {result.clean_size:,} samples" in shown
    assert f"asked about {sum(result.asked.values()):,} inputs: clean 20" in shown
