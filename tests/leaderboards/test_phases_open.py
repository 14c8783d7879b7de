"""Phases: public ones without a server; hidden ones opened, played, closed and made again by anyone."""

import datetime as dt
import gzip
import shutil
import stat

import msgspec
import numpy as np
import pytest

from advgym.core.task import make_task
from advgym.errors import AdvgymError, DataError
from advgym.judge.verdict import judge, victim_card
from advgym.leaderboards.entries.entry import Entry, Interval
from advgym.leaderboards.rules import board, board_tables, commitments, hidden
from advgym.leaderboards.rules.opening import close_phase, open_phase
from advgym.leaderboards.rules.phase_cards import card_path, phase_card, phase_secret, refusal, secret_path
from advgym.leaderboards.rules.phases import phase_tasks
from advgym.leaderboards.store import ledger
from advgym.lib.weights import weights_hash

TEXT = """
title = "Graphs"
opens = 2026-01-01T00:00:00Z
closes = 2030-01-01T00:00:00Z
[[tasks]]
id = "graph/sbm-edge"
knowledge = "score"
queries = 20
[[tasks]]
id = "graph/sbm-feature"
knowledge = "white-box"
queries = 20
gradients = 5
[[tasks]]
id = "image/digits-l2"
knowledge = "white-box"
queries = 20
gradients = 5
[phases.dev]
samples = 12
source = "split:test"
[phases.test]
samples = 30
source = "generator"
[shards]
order = "shuffled"
[defense]
panel = ["noise", "pgd", "first-order"]
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.toml").write_text(TEXT)
    return board.load(tmp_path / "own.toml")


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """The data folder of a phase that was opened: its victims are trained once for all tests."""
    folder = tmp_path_factory.mktemp("opened")
    (folder / "own.toml").write_text(TEXT)
    open_phase(board.load(folder / "own.toml"), "test", folder / "data")
    return folder / "data"


@pytest.fixture
def opened(own, once, tmp_path):
    """(the board, a copy of that folder, the phase's card)."""
    root = tmp_path / "data"
    shutil.copytree(once, root)
    return own, root, phase_card(own, "test", root)


def public_text(root) -> bytes:
    """Everything under the data folder that is not kept from others."""
    private = (root / "secrets", root / "victims")
    paths = [p for p in root.rglob("*") if p.is_file() and not any(q in p.parents for q in private)]
    assert paths
    return b"\n".join(p.read_bytes() for p in paths)


def test_a_public_phase_needs_no_server(own):
    tasks = phase_tasks(own, "dev")
    assert [t.row.id for t in tasks] == [row.id for row in own.tasks]
    for t in tasks:
        assert t.split == "test" and len(set(t.ids)) == len(t.ids) == 12
        again = make_task(t.row.id, **t.options)
        assert again.threat == t.task.threat
        assert (again.threat.queries, again.threat.knowledge) == (t.row.queries, t.row.knowledge)
    assert [t.ids for t in tasks] == [t.ids for t in phase_tasks(own, "dev")]
    listed = phase_tasks(msgspec.structs.replace(own, shards=board_tables.Shards()), "dev")
    assert [sorted(t.ids) for t in listed] == [sorted(t.ids) for t in tasks]
    assert listed[0].ids != tasks[0].ids
    card = phase_card(own, "dev")
    assert card.public_data and commitments.commit(bytes.fromhex(card.secret)) == card.commitment
    assert phase_secret(own, "dev") == bytes.fromhex(card.secret)


def test_a_hidden_phase_is_opened_first(own, tmp_path):
    with pytest.raises(AdvgymError, match="advgym board open own --phase test"):
        phase_tasks(own, "test", tmp_path)
    with pytest.raises(AdvgymError, match="advgym board open own --phase test"):
        phase_tasks(own, "test")
    with pytest.raises(AdvgymError, match="never opened"):
        close_phase(own, "test", tmp_path)


def test_an_open_phase_keeps_its_secret(opened):
    own, root, card = opened
    path = secret_path(root, "own", "test")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE((root / "victims").stat().st_mode) == 0o700
    secret = phase_secret(own, "test", root)
    assert commitments.commit(secret) == card.commitment == phase_card(own, "test", root).commitment
    seeds = [hidden.victim_seed(row, secret) for row in own.tasks]
    seeds += [
        int(hidden.hidden_dataset(own, "test", row.id, secret)[0].split("#")[1].split(":")[0]) for row in own.tasks
    ]
    said = public_text(root)
    options = [t.options for t in phase_tasks(own, "test", root)]
    about = [victim_card(t.task) for t in phase_tasks(own, "test", root)]
    said += msgspec.json.encode((options, about, [t.task.threat for t in phase_tasks(own, "test", root)]))
    for word in (secret.hex(), *map(str, seeds)):
        assert word.encode() not in said
    assert card.closed == "" and card.secret == ""


def test_victims_below_white_box_are_the_servers_own(opened):
    own, root, card = opened
    tasks = {t.row.id: t for t in phase_tasks(own, "test", root)}
    assert set(card.victims) == {"graph/sbm-edge", "graph/sbm-feature"}  # digits: white-box, not of one graph
    shipped = {name: victim_card(make_task(name))["weights"] for name in tasks}
    for name, t in tasks.items():
        found = weights_hash(t.task.victim.module)
        assert t.split == "hidden" and sorted(t.ids) == list(range(30)) and t.options["own"]
        assert (found == shipped[name]) == (name == "image/digits-l2")
        if name in card.victims:
            assert card.victims[name].weights == found
            assert card.victims[name].clean_accuracy > 0.7
    # Gradients of one would be gradients of the other.
    assert card.victims["graph/sbm-edge"].weights != card.victims["graph/sbm-feature"].weights


def test_two_openings_differ(own, tmp_path):
    cards = [open_phase(own, "test", tmp_path / name) for name in ("a", "b")]
    assert cards[0].commitment != cards[1].commitment
    assert cards[0].victims["graph/sbm-edge"].weights != cards[1].victims["graph/sbm-edge"].weights


@pytest.mark.parametrize(
    ("right", "samples", "opens"), [(5, 8, True), (2, 8, False), (60, 100, False), (75, 100, True)]
)
def test_a_victim_that_did_not_learn_is_refused_where_samples_tell(own, tmp_path, monkeypatch, right, samples, opens):
    """0.8 of the recipe's accuracy is about 0.76; of eight samples, five right are no proof against it."""
    one = msgspec.structs.replace(own, tasks=own.tasks[:1])
    found = np.arange(samples) < right
    monkeypatch.setattr("advgym.judge.play.clean_pass", lambda *a: (float(found.mean()), found, []))
    monkeypatch.setattr(hidden, "train_victim", lambda row, *a: make_task(row.id).victim)
    if opens:
        assert open_phase(one, "test", tmp_path).victims["graph/sbm-edge"].clean_accuracy == right / samples
        return
    with pytest.raises(AdvgymError, match=f"of its {samples} samples right"):
        open_phase(one, "test", tmp_path)
    assert not card_path(tmp_path, "own", "test").exists()


def test_opened_once(opened):
    own, root, card = opened
    with pytest.raises(AdvgymError, match="opened before"):
        open_phase(own, "test", root)
    assert phase_card(own, "test", root) == card
    assert [line.kind for line in ledger.read(root)] == ["open"]


def test_a_kill_between_card_and_ledger_is_mended(opened):
    own, root, card = opened
    ledger.path(root).unlink()
    with pytest.raises(AdvgymError, match="opened before"):
        open_phase(own, "test", root)
    assert [line.body["commitment"] for line in ledger.read(root)] == [card.commitment]


def test_anyone_makes_a_closed_phase_again(opened, tmp_path, monkeypatch):
    own, root, card = opened
    before = phase_tasks(own, "test", root)
    closed = close_phase(own, "test", root)
    assert not secret_path(root, "own", "test").exists()
    assert commitments.commit(bytes.fromhex(closed.secret)) == card.commitment
    assert "sbm#" in closed.victims["graph/sbm-edge"].recipe["dataset"]
    assert [line.kind for line in ledger.read(root)] == ["open", "close"]
    assert ledger.verify_chain(root) == []
    with pytest.raises(AdvgymError, match="was closed at"):
        close_phase(own, "test", root)
    mirror = tmp_path / "mirror"
    shutil.copytree(root / "phases", mirror / "phases")
    monkeypatch.setattr("advgym.core.task._loaded", {})
    monkeypatch.setattr(
        "advgym.envs.graph.victims.recipes.fit_nodes", lambda *a, **k: pytest.fail("trained, not fetched")
    )
    after = phase_tasks(own, "test", mirror)
    for one, two in zip(before, after, strict=True):
        assert (one.ids, one.split) == (two.ids, two.split)
        assert weights_hash(one.task.victim.module) == weights_hash(two.task.victim.module)
        batch = one.task.samples(one.split, one.ids)
        p = batch.random(3)
        a, b = (judge(t.task, t.split, t.ids, p) for t in (one, two))
        assert a.objective.tolist() == b.objective.tolist() and a.labels.tolist() == b.labels.tolist()


def test_a_closed_phase_is_made_again_without_the_weights(opened, tmp_path, monkeypatch):
    own, root, _ = opened
    close_phase(own, "test", root)
    mirror = tmp_path / "mirror"
    shutil.copytree(root / "phases", mirror / "phases")
    shutil.rmtree(mirror / "phases" / "own" / "weights")
    monkeypatch.setattr("advgym.core.task._loaded", {})
    assert len(phase_tasks(own, "test", mirror)) == 3  # trained anew, to the published hash


def test_tampering_is_seen(opened, monkeypatch):
    own, root, card = opened
    path = secret_path(root, "own", "test")
    good = path.read_bytes()
    path.write_bytes(msgspec.json.encode({"secret": bytes(32).hex()}))
    with pytest.raises(DataError, match="not the one its card commits to"):
        phase_tasks(own, "test", root)
    path.write_bytes(good)
    card.victims["graph/sbm-edge"].weights = "0" * 64
    card_path(root, "own", "test").write_bytes(msgspec.json.encode(card))
    with pytest.raises(DataError, match="is not the one published"):
        phase_tasks(own, "test", root)
    card_path(root, "own", "test").write_bytes(b"{")
    with pytest.raises(DataError, match="is not what a server writes"):
        phase_tasks(own, "test", root)


def test_a_changed_board_is_another_phase(opened):
    own, root, _ = opened
    changed = msgspec.structs.replace(own, probes=False)
    with pytest.raises(AdvgymError, match="is not what it was when phase 'test' was opened"):
        phase_tasks(changed, "test", root)
    later = msgspec.structs.replace(own, closes=dt.datetime(2031, 1, 1, tzinfo=dt.UTC))
    assert phase_tasks(later, "test", root)


def test_when_submissions_are_taken(opened):
    own, root, _ = opened
    at = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    assert refusal(own, "test", root, at) == refusal(own, "dev", None, at) == ""
    assert "board opens at" in refusal(own, "test", root, dt.datetime(2025, 1, 1, tzinfo=dt.UTC))
    assert "board closed at" in refusal(own, "dev", root, dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    assert "is not open" in refusal(own, "test", root / "other", at)
    close_phase(own, "test", root)
    assert "was closed at" in refusal(own, "test", root, at)


def test_weights_that_are_handed_out(own, tmp_path):
    board_ = msgspec.structs.replace(own, weights=True)
    card = open_phase(board_, "test", tmp_path)
    said = card.victims["graph/sbm-edge"]
    assert (tmp_path / "phases" / "own" / "weights" / said.file).is_file()
    secret = phase_secret(board_, "test", tmp_path)
    for row in board_.tasks:
        assert str(hidden.victim_seed(row, secret)).encode() not in public_text(tmp_path)
    assert phase_tasks(board_, "test", tmp_path)


def entry(own, name, low, **more) -> Entry:
    return Entry(
        **{
            "board": "own", "phase": "dev", "track": "attack", "name": name, "team": "t", "tasks": [], "rows": "",
            "submission": name * 64, "board_hash": board.board_hash(own), "scorer": "", "created": "2026-01-01",
            "headline": Interval(low, low, low), "transcript": "", "sandbox": "bwrap", "device": "cpu", "versions": {},
            **more,
        }
    )  # fmt: skip


def test_the_panel_has_the_best_of_the_phase_before(own, tmp_path):
    folder = tmp_path / "entries" / "own"
    folder.mkdir(parents=True)
    for e in (
        entry(own, "a", 0.5),
        entry(own, "b", 0.7),
        entry(own, "c", 0.9, eligible=False),
        entry(own, "d", 0.9, track="defense"),
        entry(own, "e", 0.9, origin="baseline"),
        entry(own, "f", 0.9, board_hash="old"),
        entry(own, "0", 0.9, external=True),
    ):
        (folder / f"{e.id}.json").write_bytes(msgspec.json.encode(e))
        (folder / f"{e.id}.rows.json").write_bytes(b"{}")
    card = open_phase(own, "test", tmp_path)
    assert card.panel == ["noise", "pgd", "first-order", f"submission:{'b' * 64}"]
    assert phase_card(own, "dev").panel == ["noise", "pgd", "first-order"]


def test_a_path_on_the_server(own, tmp_path):
    from advgym.envs.image.data import sets as data

    where = tmp_path / "mine"
    where.mkdir()
    for part, split in (("train", "train"), ("t10k", "test")):
        images = data.load("digits", split)
        levels = (images.levels[:40, 0].double() * 255 / 16).round().to(dtype=images.levels.dtype).numpy()
        for stem, array in (
            (f"{part}-images-idx3-ubyte", levels),
            (f"{part}-labels-idx1-ubyte", images.labels[:40].numpy()),
        ):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
            (where / f"{stem}.gz").write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))
    phases = {"final": board_tables.Phase(samples=20, source=f"path:{where}")}
    pathed = msgspec.structs.replace(own, tasks=own.tasks[2:], phases=phases)
    open_phase(pathed, "final", tmp_path / "data")
    (task,) = phase_tasks(pathed, "final", tmp_path / "data")
    assert task.split == "test" and len(set(task.ids)) == 20 and task.task.sizes["test"] == 40
    assert str(where) not in str(task.options)


def test_more_samples_than_there_are(own):
    phases = {"dev": board_tables.Phase(samples=241, source="split:test")}
    with pytest.raises(AdvgymError, match="wants 241 samples; split 'test' of graph/sbm-edge has 240"):
        phase_tasks(msgspec.structs.replace(own, phases=phases), "dev")
