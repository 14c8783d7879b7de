"""Cheats around the run: data learnt by heart, copies, archives, logs, names, and an organiser with a pen."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import msgspec
import pytest
import tiny
import warm
from cheating import HONEYPOT, NOISE, OPEN, SOFT, Place, board_of, each, place, stage_of  # noqa: F401

from advgym.leaderboards.entries.card import pack, read_card
from advgym.leaderboards.entries.kin import copies, gap
from advgym.leaderboards.entries.own_rows import verify_entry
from advgym.leaderboards.rules.opening import open_phase
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.runs import worker as working
from advgym.leaderboards.runs.trial import try_out
from advgym.leaderboards.store import artefacts, ledger, rebuild, record, submissions
from advgym.leaderboards.store.db import open_store


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the hidden phase open."""
    path = tmp_path_factory.mktemp("served")
    open_phase(board_of(OPEN), "test", path)
    return path


# -- row 15 ----------------------------------------------------------------------------------------------------
PGD = """
def attack(env, *, seed):
    env.reset(seed=seed)
    p = torch.zeros(env.num_envs, *env.shape)
    for i in range(10):
        if env.done:
            break
        p = p.detach().requires_grad_()
        obs, *_ = env.step(p)
        (g,) = torch.autograd.grad(obs["surrogate"].sum(), p)
        p = env.threat.project(p + g.sign() / 8)
    x = env._batch.x
    for i in range(env.num_envs):
        p = env._book.held[i]
        tell(x=(x[i] * 16).round().int().flatten().tolist(), p=(p * 16).round().int().flatten().tolist())
"""
LOOKED_UP = """
TABLE = json.load(open(os.path.join(os.path.dirname(__file__), "table.json")))
def attack(env, *, seed):
    obs, _ = env.reset(seed=seed)
    keys = [str((x * 16).round().int().flatten().tolist()) for x in env._batch.x]
    p = torch.stack([torch.tensor(TABLE.get(k, [0] * 64)).view(env.shape) / 16 for k in keys]).float()
    tell(known=sum(k in TABLE for k in keys))
    env.step(p)
"""


def test_what_was_learnt_by_heart_is_worth_nothing_on_hidden_samples(place: Place, root: Path) -> None:  # noqa: F811
    learnt = place.play(PGD, OPEN)
    assert learnt.entry is not None and learnt.gain > 0.5, (learnt.failure, learnt.log)
    folder = place.write(LOOKED_UP)
    (folder / "table.json").write_text(json.dumps({str(s["x"]): s["p"] for s in learnt.said}))
    dev, test = place.play(folder, OPEN), place.play(folder, OPEN, phase="test", root=root)
    assert dev.entry is not None and test.entry is not None
    assert dev.gain == learnt.gain and sum(s["known"] for s in dev.said) == 6
    assert test.gain == 0 and not any(s["known"] for s in test.said)
    assert gap(test.entry, [dev.entry, test.entry]) == pytest.approx(dev.gain)  # and everybody sees it


def test_hidden_samples_are_none_of_the_public_ones(root: Path) -> None:
    hidden, public = stage_of(OPEN, "test", root).tasks[0], stage_of(OPEN).tasks[0].task
    x = hidden.task.samples(hidden.split, hidden.ids).x.flatten(1)
    for split, size in public.sizes.items():
        y = public.samples(split, list(range(size))).x.flatten(1)
        assert not bool((x.unsqueeze(1) == y.unsqueeze(0)).all(2).any())


# -- row 21 ----------------------------------------------------------------------------------------------------
COPY = '''
def attack(environment, *, seed):
    """All my own work."""
    environment.reset(seed=seed)  # a comment
    for turn in range(20):
        if environment.done:
            break

        environment.step(
            environment.threat.random(seed + turn))
'''


def test_a_copy_is_named_with_whom_it_copies(place: Place) -> None:  # noqa: F811
    """Other names, comments and layout; another card; the same code."""
    first, second = place.play(place.write(NOISE), SOFT).entry, place.play(place.write(COPY), SOFT).entry
    assert first is not None and second is not None
    first = msgspec.structs.replace(first, team="ann", name="a")
    second = msgspec.structs.replace(second, team="bob", created="2026-06-02T00:00:00Z")
    assert first.submission != second.submission and first.code == second.code
    found = copies([second, first])
    assert list(found) == [second.id] and "the same code as 'a' of ann" in found[second.id][0]


# -- row 22 ----------------------------------------------------------------------------------------------------
def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def _bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("agent.py", b"0" * (80 << 20))
    return out.getvalue()


ARCHIVES = {
    "traversal": lambda: _tar((_info("../../escaped.py"), b"x")),
    "absolute": lambda: _tar((_info("/tmp/escaped.py"), b"x")),
    "link": lambda: _tar((_info("agent.py", tarfile.SYMTYPE, "/etc/passwd"), b"")),
    "hard_link": lambda: _tar((_info("agent.py", tarfile.LNKTYPE, "/etc/passwd"), b"")),
    "through_a_link": lambda: _tar((_info("d", tarfile.SYMTYPE, "/tmp"), b""), (_info("d/escaped.py"), b"x")),
    "device": lambda: _tar((_info("agent.py", tarfile.CHRTYPE), b"")),
    "many": lambda: _tar(*[(_info(f"f{i}"), b"") for i in range(5000)]),
    "bomb": _bomb,
    "noise": lambda: b"PK\x03\x04" + bytes(range(256)) * 40,
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_is_a_trap_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "s.tar").write_bytes(ARCHIVES[kind]())
    trial, entry, _ = try_out(tmp_path / "s.tar", board_of(HONEYPOT))
    assert entry is None and trial.status == "failed" and trial.blame == "participant"
    assert trial.reason in ("bad-archive", "too-large") and trial.message
    assert not Path("/tmp/escaped.py").exists() and not list(tmp_path.parent.rglob("escaped.py"))


# -- row 23 ----------------------------------------------------------------------------------------------------
LEAK = """
def attack(env, *, seed):
    env.reset(seed=seed)
    text = "LEAK" + "".join(str(int(v)) for v in (env._batch.x[0] * 16).flatten())
    print(text); print(text, file=sys.stderr)
    WAY
"""


@each(
    scored="env.step(env.threat.random(seed))",
    crashed="raise ValueError(text)",
    named="raise type(text, (Exception,), {})(text)",
    exited="os._exit(7)",
    imported="import importlib; importlib.import_module(text)",
    broken="env._channel.sock.sendall(text.encode() * 9)",
)
def test_hidden_samples_do_not_leave_by_the_log(
    place: Place,  # noqa: F811
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
) -> None:
    """A real worker, queue and record: nothing that the team may see before the close holds a sample."""
    monkeypatch.setattr(working, "Spares", lambda *_: warm.Spares(1, place.level))
    board, store = board_of(OPEN), open_store(tmp_path / "db.sqlite3")
    folder = place.write(LEAK.replace("WAY", code))
    card = msgspec.to_builtins(read_card(folder))
    id = submissions.submit(
        store, "ann", "own", "test", "attack", artefacts.put(root, pack(folder)), card, board.quota, hidden=True
    )
    mine = working.Worker(store, root, {"own": board}, name="w")
    mine.stages[("own", "test")] = stage_of(OPEN, "test", root)
    assert mine.one()
    found = tiny.told(store, id)
    assert found is not None and found.state in ("scored", "failed") and found.reason != "internal-error", found
    seen = msgspec.json.encode(found).decode()
    assert "LEAK" not in seen and found.log == ""
    if found.entry:
        entry = record.read_entry(root, found.entry)
        assert entry is not None and "LEAK" not in msgspec.json.encode(entry).decode()
    store.close()


# -- row 26 ----------------------------------------------------------------------------------------------------
def test_an_organiser_cannot_mend_a_result(place: Place, tmp_path: Path) -> None:  # noqa: F811
    """Files are named by their hash in a chain; a new chain is not the one whose head was published."""
    found = place.play(NOISE, SOFT)
    assert found.entry is not None and found.rows is not None
    record.write_entry(tmp_path, found.entry, found.rows, "s1")
    published = ledger.head(tmp_path)
    assert published is not None and ledger.verify_chain(tmp_path, published) == []
    store = open_store(tmp_path / "db.sqlite3")
    assert rebuild.rebuild(store, tmp_path) == []
    path = next(p for p in (tmp_path / "entries/own").glob("*.json") if ".rows" not in p.name)
    honest = path.read_bytes()
    better = msgspec.structs.replace(found.entry, headline=msgspec.structs.replace(found.entry.headline, value=1.0))
    path.write_bytes(msgspec.json.encode(better))
    store.close()
    store = open_store(tmp_path / "db2.sqlite3")
    assert rebuild.rebuild(store, tmp_path)  # it says so
    path.write_bytes(honest)
    store.close()
    (tmp_path / "ledger.jsonl").unlink()  # a whole new record, with the better entry
    record.write_entry(tmp_path, better, found.rows, "s1")
    assert ledger.verify_chain(tmp_path) == [] and ledger.verify_chain(tmp_path, published)


def test_a_figure_that_does_not_follow_from_the_rows_is_found(place: Place) -> None:  # noqa: F811
    """Anyone who has the rows judges them again."""
    from contextlib import nullcontext

    found, stage = place.play(NOISE, SOFT), stage_of(SOFT)
    assert found.entry is not None and found.rows is not None
    facts = [msgspec.structs.replace(f, seeds=found.entry.run_seeds) for f in stage.facts]
    check = (stage.board, facts, lambda rs: nullcontext(stage.tasks[0].task))
    assert verify_entry(found.entry, found.rows, *check) == []
    better = msgspec.structs.replace(found.entry, headline=msgspec.structs.replace(found.entry.headline, low=0.99))
    assert any("headline" in w for w in verify_entry(better, found.rows, *check))
    rows = msgspec.json.decode(msgspec.json.encode(found.rows), type=type(found.rows))
    lost = next(s for s in rows.sets[0].samples if not s.success)
    lost.success = True
    assert any(f"sample {lost.id}" in w for w in verify_entry(found.entry, rows, *check))


# -- row 27 ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "line",
    ['name = "a\\u001b[31m"', 'name = "a\\u202eb"', 'title = "a\\nb"', 'team = "\\u200b"', f'name = "{"x" * 61}"',
     'name = ["a"]', 'score = 1.0', 'name = "a"\nname = "b"', "!!python/object/apply:os.system [id]"],
)  # fmt: skip
def test_a_card_is_data_within_bounds(place: Place, line: str) -> None:  # noqa: F811
    """Control and direction characters, lengths, unknown keys: refused with a reason, never shown."""
    folder = place.write(NOISE)
    card = 'track = "attack"\n' + (line if line.startswith(("name", "!!")) else f'name = "a"\n{line}') + "\n"
    (folder / "card.toml").write_text(card)
    with pytest.raises(Refused) as caught:
        read_card(folder)
    assert caught.value.code == "bad-card" and caught.value.text.isprintable()
