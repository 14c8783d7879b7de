"""What the pages show, read from a data folder: entries, public phase cards, the ledger's head. Read once a change."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from advgym.errors import DataError
from advgym.leaderboards.entries.entry import Entry, canonical
from advgym.leaderboards.rules import commitments
from advgym.leaderboards.rules.board import board_hash
from advgym.leaderboards.rules.board_tables import Board
from advgym.leaderboards.scoring.ranking import rank, unranked
from advgym.leaderboards.service.chain import Chain, mark_of
from advgym.leaderboards.service.told import told
from advgym.leaderboards.store import ledger, record
from advgym.leaderboards.store.record import Fault

ENTRY_ID = re.compile(r"[0-9a-f]{16}")
WHY = {  # `unranked` in a reader's words
    "not a number": "its headline is not a number",
    "not eligible": "not eligible",
    "unreliable": "marked unreliable by the organiser",
    "not run by this server": "external: not run by this server",
}


class VictimView(msgspec.Struct, kw_only=True):
    """A victim trained for a hidden phase; SHA-256 of its weights."""

    name: str = ""
    clean_accuracy: float = 0.0
    weights: str = ""


class PhaseView(msgspec.Struct, kw_only=True):
    """The public card of a phase as the pages read it; keys that they do not show are ignored."""

    board: str = ""
    phase: str = ""
    board_hash: str = ""
    commitment: str = ""
    opened: str = ""
    closed: str = ""
    secret: str = ""
    victims: dict[str, VictimView] = {}
    panel: list[str] = []


class Placed(msgspec.Struct, frozen=True):
    """An entry at its place: `rank` None with the reason in `why`; `tied`: others share the rank."""

    id: str
    entry: Entry
    rank: int | None
    tied: bool = False
    why: str = ""


class Book(msgspec.Struct, frozen=True):
    """One board, as far as the record goes.

    Attributes:
        tables: entries in order, by (phase, track).
        entries: every entry by id, superseded ones too, as they are told (`told.told`); lowered: id -> the id that
            supersedes it.
        cards: public cards by phase; a hidden phase that was never opened has none.
        damaged: files that are missing, or are not what the ledger says; they are left out.
        stamp: changes when any of this does.
    """

    board: Board
    tables: dict[tuple[str, str], list[Placed]]
    entries: dict[str, Entry]
    lowered: dict[str, str]
    cards: dict[str, PhaseView]
    damaged: list[str]
    stamp: str

    def published(self, phase: str) -> bool:
        """Whether rows of this phase may be read: it has public data, or is closed."""
        if phase not in self.board.phases:
            return False
        card = self.cards.get(phase)
        return not self.board.phases[phase].hidden or bool(card and card.closed)


class Shelf:
    """The boards of a server. Threads may share one.

    Args:
        root: the data folder.
        boards: by name.
        clock: epoch seconds: an entry of an open hidden phase is told when the step in which it was written is over.
    """

    def __init__(self, root: Path, boards: Mapping[str, Board], clock: Callable[[], float] = time.time) -> None:
        self.root, self.boards = Path(root), dict(boards)
        self.chain = Chain(self.root, self.boards, clock)
        self._hashes = {name: board_hash(board) for name, board in boards.items()}
        self._scorers: dict[str, str] = {}
        self._books: dict[str, Book] = {}
        self._read: dict[str, tuple[tuple[int, ...], Entry]] = {}  # by id, with the marks of the file it was read from
        self._doubted: tuple[str, ...] = ()
        self._stale: dict[tuple[str, bytes], str] = {}  # by id and phase card; boards and scorer stay while we run
        self._lock = threading.Lock()

    def stamp(self, name: str) -> str:
        """Changes when the record of a board does: from what the folders and the ledger say of themselves."""
        paths = (self.root / "ledger.jsonl", self.root / "entries" / name, self.root / "phases" / name)
        found = [path.stat() if path.exists() else None for path in paths]
        doubted = hashlib.sha256(" ".join(self._doubted).encode()).hexdigest()[:16] if self._doubted else "sound"
        files = ["-" if s is None else f"{s.st_mtime_ns}.{s.st_size}" for s in found]
        return " ".join([*files, doubted, str(len(self.chain.told()))])

    def doubt(self, faults: Iterable[Fault]) -> None:
        """What a look at the record found: those files are read again, and left out where they are not what they were.

        Folders tell of files that come and go; of one that was changed in its place only a look at each file tells.
        """
        self._doubted = tuple(sorted({f.where for f in faults}))

    def book(self, name: str) -> Book:
        """A board's book, read again only when its stamp has changed; `name` is one of `boards`."""
        stamp, book = self.stamp(name), self._books.get(name)
        if book is None or book.stamp != stamp:
            with self._lock:
                book = self._books[name] = self._load(name, stamp)
        return book

    def find(self, id: str) -> tuple[Book, Entry] | None:
        """An entry of any board, or None."""
        if not ENTRY_ID.fullmatch(id):
            return None
        for name in self.boards:
            book = self.book(name)
            if id in book.entries:
                return book, book.entries[id]
        return None

    def raw(self, book: Book, id: str) -> bytes:
        """An entry's JSON, as it is told; `id` is one of the book's.

        Raises:
            DataError: it was changed since it was read.
        """
        if not book.published(book.entries[id].phase):
            return canonical(book.entries[id])
        return self.file(book, id)

    def file(self, book: Book, id: str) -> bytes:
        """An entry's file, whatever its phase: for the organiser.

        Raises:
            DataError: it was changed since it was read.
        """
        raw = (self._folder(book.board.name) / f"{id}.json").read_bytes()
        if hashlib.sha256(raw).hexdigest()[:16] != id:
            raise DataError(f"the file of entry {id} is damaged; restore it from a published copy")
        return raw

    def whole(self, book: Book, id: str) -> Entry:
        """All of an entry, whatever its phase: for the organiser."""
        return msgspec.json.decode(self.file(book, id), type=Entry)

    def rows(self, book: Book, id: str) -> bytes | None:
        """An entry's rows, where its phase shows them and they are what the entry says."""
        entry = book.entries[id]
        path = self._folder(book.board.name) / f"{id}.rows.json"
        if not book.published(entry.phase) or not path.is_file():
            return None
        raw = path.read_bytes()
        return raw if hashlib.sha256(raw).hexdigest() == entry.rows else None

    def head(self) -> str:
        """Hash of the last line that is told; "damaged" where anything of the chain is."""
        lines = self.chain.told()
        return "damaged" if self.chain.read()[1] else lines[-1].hash if lines else ledger.ZERO

    def _scorer(self, board: Board) -> str:
        if board.name not in self._scorers:
            from advgym.leaderboards.scoring.scorer import scorer_hash  # reads the sources of the tasks' domains

            self._scorers[board.name] = scorer_hash(board)
        return self._scorers[board.name]

    def _folder(self, name: str) -> Path:
        return self.root / "entries" / name

    def _load(self, name: str, stamp: str) -> Book:
        from advgym.leaderboards.entries.stale import stale

        board, entries = self.boards[name], {}
        every, faults = self.chain.read()
        damaged = [record.LEDGER] if faults else []
        for line in self.chain.told():  # a file that no line names is no entry: its writer was killed
            if line.kind == "entry" and line.body.get("board") == name:
                key = str(line.body["entry"])
                entry = self._entry(name, key, str(line.body.get("sha", "")))
                if entry is None:
                    damaged.append(f"{key}.json")
                else:
                    entries[key] = entry
        cards = self._cards(board, every, damaged)
        own = tuple(f"{kind}/{name}/" for kind in ("entries", "phases"))
        doubted = [f.removeprefix(own[0]) for f in self._doubted if f.startswith(own)]
        damaged += [f for f in doubted if f not in damaged]
        marks = {phase: msgspec.json.encode(card) for phase, card in cards.items()}
        old: dict[str, str] = {}
        for key, entry in entries.items():
            known = (key, marks.get(entry.phase, b""))
            if known not in self._stale:
                card = cards.get(entry.phase, PhaseView())
                self._stale[known] = stale(entry, board, card, self._scorer(board))  # type: ignore[arg-type]
            if self._stale[known]:
                old[key] = self._stale[known]
        out = {p for p, row in board.phases.items() if not row.hidden or (p in cards and cards[p].closed)}
        entries = {key: e if e.phase in out else told(e) for key, e in entries.items()}
        names = {id(entry): key for key, entry in entries.items()}
        tables = {}
        for phase in board.phases:
            for track in board.tracks:
                some = [e for e in entries.values() if (e.phase, e.track) == (phase, track)]
                tables[phase, track] = _placed(rank(some, old), names, old)
        lowered = {e.supersedes: key for key, e in entries.items() if e.supersedes}
        return Book(board, tables, entries, lowered, cards, damaged, stamp)

    def _entry(self, name: str, key: str, sha: str) -> Entry | None:
        path = self._folder(name) / f"{key}.json"
        mark = mark_of(path) if ENTRY_ID.fullmatch(key) else ()
        if not mark:
            return None
        known = self._read.get(key)
        if known and known[0] == mark:
            return known[1]
        raw = path.read_bytes()
        try:
            entry = msgspec.json.decode(raw, type=Entry) if hashlib.sha256(raw).hexdigest() == sha else None
        except msgspec.DecodeError:
            entry = None
        if entry is None or entry.board != name:
            return None
        self._read[key] = mark, entry
        return entry

    def _cards(self, board: Board, lines: list[ledger.Line], damaged: list[str]) -> dict[str, PhaseView]:
        """The phases' cards without those that the ledger does not name: such a one could open what is hidden."""
        cards = {}
        said = {record.card_name(n): str(n.body.get("card", "")) for n in lines if n.kind in ("open", "close")}
        for phase, row in board.phases.items():
            where = f"phases/{board.name}/{phase}.json"
            if (self.root / where).is_file():
                if record.card_faults(self.root, where, said.get(where, "")):
                    damaged.append(where)
                    continue
                cards[phase] = msgspec.json.decode((self.root / where).read_bytes(), type=PhaseView)
            elif where in said and row.hidden:
                damaged.append(where)
            elif not row.hidden:
                secret = commitments.public_secret(board.name, phase, self._hashes[board.name])
                cards[phase] = PhaseView(
                    board=board.name, phase=phase, commitment=commitments.commit(secret), secret=secret.hex(),
                    panel=list(board.defense.panel),
                )  # fmt: skip
        return cards


def is_open(board: Board, now: dt.datetime | None = None) -> bool:
    """Whether the board's dates let submissions in."""
    return board.opens <= (now or dt.datetime.now(dt.UTC)) < board.closes


def _placed(table: list[tuple[int | None, Entry]], names: dict[int, str], old: dict[str, str]) -> list[Placed]:
    shared: dict[int | None, int] = {}
    for place, _ in table:
        shared[place] = shared.get(place, 0) + 1
    out = []
    for place, entry in table:
        key = names[id(entry)]
        why = "" if place is not None else unranked(entry, old, key)
        why = f"stale: {old[key]}" if why == "stale" else WHY.get(why, why)
        out.append(Placed(key, entry, place, place is not None and shared[place] > 1, why))
    return out
