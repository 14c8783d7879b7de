"""A submission's folder as the host sees it: its card, its files' names and sizes. No code of it is ever compiled."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tomllib
import unicodedata
from pathlib import Path

import msgspec

from advgym import registry
from advgym.leaderboards.entries.code_tokens import code_digest
from advgym.leaderboards.rules.board import gives
from advgym.leaderboards.rules.board_tables import TRACKS, Board
from advgym.leaderboards.rules.reasons import Refused

ENTRY = {"attack": ("agent.py", "attack(env, *, seed)"), "defense": ("defense.py", "defend(victim, task)")}
MOST_FILES = 200
MOST_CARD = 64 << 10  # bytes of card.toml
MOST_MB = 1024  # of any board's submissions; each board has its own limit below
MOST_NAME = 100  # characters of a file's path
MOST_PROPOSALS = 4096
CAPS = {"name": 60, "team": 60, "title": 160, "licence": 60, "paper": 300}  # characters


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """card.toml: what the host has to know of a submission before it runs.

    Attributes:
        name, team, title, authors, paper, licence: shown on the board.
        track: "attack" or "defense".
        kind: what an attack plays: "field", "edits" or both.
        knowledge: the least that an attack needs; tasks that give less are not attempted.
        proposals: perturbations per lane and step; None for one, without that axis.
    """

    name: str
    track: str
    team: str = ""
    kind: str | list[str] = msgspec.field(default_factory=lambda: list(registry.KINDS))
    knowledge: str = "white-box"
    proposals: int | None = None
    licence: str = ""
    title: str = ""
    authors: list[str] = []
    paper: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """`kind` as a tuple."""
        return (self.kind,) if isinstance(self.kind, str) else tuple(self.kind)

    @property
    def entry(self) -> str:
        """The file that holds the submission's function: agent.py or defense.py."""
        return ENTRY[self.track][0]


def read_card(folder: str | Path) -> Card:
    """The card of a submission's folder.

    Raises:
        Refused: "bad-card", saying which key is wrong and what is allowed.
    """
    path = Path(folder) / "card.toml"
    if path.is_symlink() or not path.is_file():
        raise Refused("bad-card", "there is none; `advgym new agent PATH` (or defense) writes a folder that works")
    with path.open("rb") as file:
        raw = file.read(MOST_CARD + 1)
    if len(raw) > MOST_CARD:
        raise Refused("bad-card", f"it is longer than {MOST_CARD} bytes")
    try:
        card = msgspec.convert(tomllib.loads(raw.decode("utf-8")), Card)
    except msgspec.ValidationError as error:
        known = ", ".join(Card.__struct_fields__)
        raise Refused("bad-card", str(error).replace("`$.", "`") + f". Keys: {known}.") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of thousands of digits
        raise Refused("bad-card", f"it is not TOML in UTF-8: {error}") from None
    for problem in _problems(card):
        raise Refused("bad-card", problem)
    return card


def _problems(card: Card) -> list[str]:
    found = []
    if not card.name.strip():
        found.append("name is empty")
    texts = {field: getattr(card, field) for field in CAPS} | {f"authors[{i}]": a for i, a in enumerate(card.authors)}
    for field, text in texts.items():
        most = CAPS.get(field, 100)
        if len(text) > most:
            found.append(f"{field} has {len(text)} characters; at most {most}")
        elif bad := [c for c in text if unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp")]:
            found.append(f"{field} holds the character {bad[0]!a}; control and format characters are not allowed")
    if len(card.authors) > 50:
        found.append(f"authors names {len(card.authors)}; at most 50")
    if card.track not in TRACKS:
        found.append(f"track is {card.track!r}; allowed: {', '.join(TRACKS)}")
    if not card.kinds or len(set(card.kinds)) != len(card.kinds) or not set(card.kinds) <= set(registry.KINDS):
        found.append(f"kind is {card.kind!r}; allowed: {', '.join(registry.KINDS)}, or a list of both")
    if card.knowledge not in registry.KNOWLEDGE:
        found.append(f"knowledge is {card.knowledge!r}; allowed: {', '.join(registry.KNOWLEDGE)}")
    if card.proposals is not None and not 1 <= card.proposals <= MOST_PROPOSALS:
        found.append(f"proposals is from 1 to {MOST_PROPOSALS}, not {card.proposals}")
    return found


def check_folder(folder: str | Path, board: Board, card: Card) -> None:
    """Refuse a submission that this board cannot run, before any of its code does.

    Raises:
        Refused: empty-submission, too-large, bad-archive, wrong-track, no-entry-point or too-much-knowledge.
    """
    files(folder, board.limits.size_mb)
    if card.track not in board.tracks:
        raise Refused("wrong-track", f"the board {board.name} has no {card.track} track; it has {_and(board.tracks)}")
    name, signature = ENTRY[card.track]
    if not (Path(folder) / name).is_file():
        other = [t for t, (file, _) in ENTRY.items() if (Path(folder) / file).is_file()]
        if other:
            raise Refused(
                "wrong-track",
                f"card.toml says track = {card.track!r}, which wants {name}, but the folder holds {ENTRY[other[0]][0]}",
            )
        raise Refused("no-entry-point", f"the folder holds no {name} with `{signature}`")
    given = sorted({task.knowledge for task in board.tasks})
    if card.track == "attack" and not any(gives(g, card.knowledge) for g in given):
        raise Refused("too-much-knowledge", f"it says {card.knowledge!r}; the tasks of {board.name} give {_and(given)}")


def _and(words: list[str]) -> str:
    return " and ".join(words)


def files(folder: str | Path, size_mb: int) -> list[tuple[str, Path]]:
    """(name, path) of a submission's files in the order of their names; names are relative, with slashes.

    Left out: what starts with a dot, and `__pycache__`.

    Raises:
        Refused: empty-submission, too-large (size, number), bad-archive (links, devices, names).
    """
    root, found, size = Path(folder), [], 0
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(root).parts):
            continue
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise Refused("bad-archive", f"{name[:200]!r} is not a regular file; links and devices are not taken")
        if path.is_dir():
            continue
        if len(name) > MOST_NAME or not name.isprintable() or not name.isascii():
            raise Refused("bad-archive", f"the file name {name[:200]!a}: at most {MOST_NAME} ASCII characters")
        size += path.stat().st_size
        found.append((name, path))
        if len(found) > MOST_FILES:
            raise Refused("too-large", f"more than {MOST_FILES} files")
        if size > size_mb << 20:
            raise Refused("too-large", f"more than {size_mb} MB in its files")
    if not found:
        raise Refused("empty-submission")
    return sorted(found)


def pack(folder: str | Path, *, size_mb: int = MOST_MB) -> bytes:
    """The canonical archive of a folder: an uncompressed tar of its files, sorted, without times, owners or modes.

    Raises:
        Refused: as `files`.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, path in files(folder, size_mb):
            data = path.read_bytes()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def folder_hash(folder: str | Path, *, size_mb: int = MOST_MB) -> str:
    """SHA-256 of the canonical archive: the submission's identity."""
    return hashlib.sha256(pack(folder, size_mb=size_mb)).hexdigest()


def code_hash(folder: str | Path, *, size_mb: int = MOST_MB) -> str:
    """SHA-256 over the tokens of the .py files, whatever their names, comments and layout: finds copies."""
    digests = sorted(code_digest(p.read_bytes()) for name, p in files(folder, size_mb) if name.endswith(".py"))
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
