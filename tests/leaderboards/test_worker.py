"""A worker in this process: jobs become entries, faults become reasons, and nothing is scored twice."""

import msgspec
import pytest
import tiny
import warm
from msgspec import structs

from advgym.judge.run import attack
from advgym.leaderboards.entries import card as cards
from advgym.leaderboards.entries import recheck as audit
from advgym.leaderboards.entries.recheck import recheck, rerun
from advgym.leaderboards.rules.board_tables import Phase
from advgym.leaderboards.rules.opening import close_phase, open_phase
from advgym.leaderboards.runs import worker as module
from advgym.leaderboards.runs.worker import Worker
from advgym.leaderboards.store import artefacts, jobs, ledger, record
from advgym.leaderboards.store.db import open_store
from advgym.leaderboards.store.record import check_record
from advgym.leaderboards.store.submissions import cancel, reveal, status, submit

# A radius in which the panel's transfer attack leaves something to dispute.
SMALL = [structs.replace(t, constraint={"eps": "2/16"}) if t.id.endswith("linf") else t for t in tiny.board().tasks]
BOARD = tiny.board(phases={"dev": Phase(24, "split:test", 1), "test": Phase(8, "generator", 1)}, tasks=SMALL)


class Server:
    """A data folder, its database, and one worker that runs when it is told to."""

    def __init__(self, root):
        self.root = root
        self.store = open_store(root / "db.sqlite3")
        self.worker = Worker(self.store, root, {"tiny": BOARD}, name="here", lease_s=60, beat_s=1)

    def hand_in(self, folder, phase="dev", team="red"):
        card = cards.read_card(folder)
        sha = artefacts.put(self.root, cards.pack(folder))
        return submit(self.store, team, "tiny", phase, card.track, sha, msgspec.to_builtins(card), BOARD.quota,
                      hidden=BOARD.phases[phase].hidden)  # fmt: skip

    def run(self, folder, **options):
        id = self.hand_in(folder, **options)
        assert self.worker.one()
        return tiny.told(self.store, id)

    def entry(self, found):
        return record.read_entry(self.root, found.entry)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("server")
    open_phase(BOARD, "dev", root)
    with pytest.MonkeyPatch.context() as patch:  # that workers take real spares is tested with `advgym serve`
        patch.setattr(module, "Spares", warm.Spares)
        patch.setattr(audit, "Box", warm.swapped)
        patch.setattr(audit, "load", lambda name, boards=None: BOARD)
        found = Server(root)
        yield found
    found.store.close()


def test_a_job_becomes_an_entry_that_anyone_can_check(server, tmp_path):
    found = server.run(tiny.attack(tmp_path / "a", name="checked"))
    assert found.state == "scored" and found.done == found.total > 0
    entry = server.entry(found)
    assert entry.team == "red" and entry.sandbox in ("bwrap", "landlock") and entry.name == "checked"
    assert check_record(server.root) == []
    path = server.root / "entries" / "tiny" / f"{entry.id}.json"
    assert recheck(path) == [] and rerun(path) == []
    assert not server.worker.one()  # the queue is empty


def test_a_fault_becomes_a_reason_with_its_log(server, tmp_path):
    code = "print('here I am')\n\ndef attack(env, *, seed):\n    raise ValueError('sample 3 is a seven')\n"
    found = server.run(tiny.attack(tmp_path / "a", code))
    assert found.state == "failed" and found.reason == "crashed" and found.blame == "participant" and found.counted
    assert "ValueError: sample 3 is a seven (agent.py, line 4)" in found.text and "here I am" in found.log


def test_a_hidden_phase_tells_type_and_line_until_it_closes(server, tmp_path, monkeypatch):
    tiny.train_shortly(monkeypatch)
    open_phase(BOARD, "test", server.root)
    code = "class Seven(Exception):\n    pass\n\ndef attack(env, *, seed):\n    raise {}('pixel 3 is 0.25')\n"
    ids = []
    for name, said in (("ValueError", "raised ValueError"), ("Seven", "raised another exception")):
        found = server.run(tiny.attack(tmp_path / name, code.format(name)), phase="test")
        ids.append(found.id)
        assert found.reason == "crashed" and found.text.endswith(said) and not found.log  # no line: samples were dealt
    early = server.run(tiny.attack(tmp_path / "early", "import json\n\nraise ValueError('none yet')\n"), phase="test")
    assert early.text.endswith("raised ValueError (agent.py, line 3)")
    entry = server.entry(server.run(tiny.attack(tmp_path / "good"), phase="test"))
    assert entry.tasks[0].victim and all(rs.options.get("own") for rs in record.read_rows(server.root, entry).sets)
    close_phase(BOARD, "test", server.root)
    reveal(server.store, "tiny", "test")
    assert "pixel 3 is 0.25 (agent.py, line 5)" in status(server.store, ids[0]).log  # its author reads it now
    kinds = [line.kind for line in ledger.read(server.root)]
    assert kinds.count("open") == 2 and kinds.count("close") == 1


def test_the_platforms_fault_gives_the_quota_back(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "evaluate", lambda *a, **k: 1 / 0)
    found = server.run(tiny.attack(tmp_path / "a"))
    assert (found.state, found.reason, found.blame, found.counted) == ("failed", "internal-error", "platform", False)


def test_an_entry_written_before_the_worker_died_is_not_written_again(server, tmp_path, monkeypatch):
    id = server.hand_in(tiny.attack(tmp_path / "a", name="dies"))
    real = jobs.finish
    monkeypatch.setattr(jobs, "finish", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        server.worker.one()
    monkeypatch.setattr(jobs, "finish", real)
    lines = len(ledger.read(server.root))
    assert status(server.store, id).state in ("queued", "scored")
    if status(server.store, id).state == "queued":
        assert server.worker.one()
    assert status(server.store, id).state == "scored" and len(ledger.read(server.root)) == lines


def test_a_cancelled_job_writes_nothing(server, tmp_path, monkeypatch):
    id = server.hand_in(tiny.attack(tmp_path / "a", name="gone"))
    real = module.evaluate

    def slow(runner, **options):
        assert cancel(server.store, id, "red")
        return real(runner, **options)

    monkeypatch.setattr(module, "evaluate", slow)
    assert server.worker.one()
    found = status(server.store, id)
    assert found.state == "cancelled" and not found.entry and not record.recorded(server.root, id)


@pytest.mark.slow
def test_a_defense_is_scored_disputed_and_lowered(server, tmp_path):
    folder = tiny.defense(tmp_path / "d")
    found = server.run(folder)
    entry = server.entry(found)
    assert found.state == "scored" and entry.track == "defense" and entry.headline.value > 0
    options = {"queries": 400, "eps": "2/16", "defenses": ["bit-depth"]}
    result = attack("image/digits-linf", "pgd", episodes=24, **options)
    assert result.success_rate > 0
    blob = artefacts.put(server.root, msgspec.json.encode(result))
    card = {"name": "against", "against": entry.id, "task": result.task}
    id = submit(server.store, "blue", "tiny", "dev:dispute", "dispute", blob, card, BOARD.quota)
    assert server.worker.one()
    said = status(server.store, id)
    assert said.state == "scored", said.text
    lowered = record.read_entry(server.root, said.entry)
    assert lowered.supersedes == entry.id and lowered.headline.value < entry.headline.value
    assert (lowered.cause, lowered.disputes) == ("dispute", 1)
    seeds = {rs.seed for rs in record.read_rows(server.root, lowered).sets if rs.attack == "dispute:1"}
    assert not seeds & set(entry.run_seeds)  # nobody could search against its draws
    # One that was handed in meanwhile, against the version that is old by now, goes on from the new one.
    again = submit(server.store, "blue", "tiny", "dev:dispute", "dispute", blob, card, BOARD.quota)
    assert server.worker.one()
    said = status(server.store, again)
    assert (said.state, said.reason, said.blame) == ("failed", "nothing-lowered", "participant"), said.text
    with pytest.raises(record.Superseded, match=lowered.id):
        rows = record.read_rows(server.root, entry)
        record.write_entry(server.root, msgspec.structs.replace(entry, supersedes=entry.id, cause="mark"), rows)
