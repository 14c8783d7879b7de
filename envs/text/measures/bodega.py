"""BODEGA's submission files (InCrediblAE, CheckThat! 2024), scored again from originals and a victim of our own.

The task's own scorer took the original text, the query count and the success from the file. Here the original comes
from the organiser's `attack.tsv`, success from the victim, and what the file claims is only compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch

from advgym.core.victim import Victim
from advgym.envs.text.measures import validity
from advgym.envs.text.measures.columns import char_edit
from advgym.errors import DataError
from advgym.lib.rates import mean, wilson

HEADER = ("succeeded", "num_queries", "original_text", "modified_text")
PAIR = " ~ "  # between the two texts of a paired task
CHUNK = 64


class Claim(msgspec.Struct, frozen=True):
    """One line of a submission."""

    succeeded: bool
    queries: int
    original: str
    modified: str


class Row(msgspec.Struct, frozen=True):
    """One line, checked. `score` is BODEGA's product success x meaning x characters."""

    id: int
    claimed: bool
    success: bool
    same_original: bool
    before: int
    after: int
    kept: float
    character: float
    score: float


class Rescored(msgspec.Struct, frozen=True):
    """A submission, checked. `queries_claimed` is the file's own word; no scorer can know it from the file."""

    texts: int
    claimed: int
    verified: int
    success_rate: float
    success_ci: tuple[float, float]
    valid_success_rate: float
    kept_mean: float
    character_mean: float
    score: float
    queries_claimed: float
    false_claims: list[int]
    altered_originals: list[int]
    rows: list[Row]

    @property
    def told(self) -> dict[str, str]:
        """The figures in words."""
        low, high = (100 * v for v in self.success_ci)
        return {
            "success": f"{self.verified} of {self.claimed} claimed ({100 * self.success_rate:.1f} %, 95 % interval "
                       f"{low:.1f} to {high:.1f})",
            "meaning kept": f"{100 * self.valid_success_rate:.1f} % succeed with the meaning kept; mean validity of "
                            f"successes {self.kept_mean:.2f}",
            "characters kept": f"{self.character_mean:.3f}",
            "score": f"{self.score:.4f}  (success x validity x characters)",
            "queries": f"{self.queries_claimed:.1f}, as the file says; not checked",
        }  # fmt: skip

    @property
    def doubts(self) -> dict[str, list[int]]:
        """Lines of the file, from 0, that are not as it says."""
        return {"claims that do not hold": self.false_claims, "originals altered": self.altered_originals}


# -- files ---------------------------------------------------------------------------------------------------
def _lines(path: str | Path) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not utf-8 text: {error}") from None
    return [line for line in text.split("\n") if line.strip()]


def _unescape(text: str) -> str:
    return text.replace("\\n", "\n")


def read_submission(path: str | Path) -> list[Claim]:
    """The lines of a four-column file: succeeded, num_queries, original_text, modified_text; with or without header.

    Raises:
        DataError: names the line and says what is wrong with it.
    """
    claims = []
    for number, line in enumerate(_lines(path), 1):
        parts = line.rstrip("\r").split("\t")
        if parts and parts[-1] == "" and len(parts) == len(HEADER) + 1:
            parts.pop()  # the task's own files end each line with a tab
        if number == 1 and tuple(parts) == HEADER:
            continue
        where = f"{path}, line {number}"
        if len(parts) == len(HEADER) - 1 and parts[0].lower() == "false":
            parts.append("")
        if len(parts) != len(HEADER):
            raise DataError(f"{where}: {len(parts)} columns; want {len(HEADER)}, split by tabs: {', '.join(HEADER)}")
        if parts[0].lower() not in ("true", "false"):
            raise DataError(f"{where}: succeeded is true or false, not {parts[0]!r}")
        if not parts[1].isdecimal():
            raise DataError(f"{where}: num_queries is a whole number, not {parts[1]!r}")
        claims.append(Claim(parts[0].lower() == "true", int(parts[1]), _unescape(parts[2]), _unescape(parts[3])))
    if not claims:
        raise DataError(f"{path} holds no lines of a submission")
    return claims


def read_originals(path: str | Path) -> list[str]:
    """The texts of BODEGA's `attack.tsv`: label, source, text, and the second text of paired tasks."""
    texts = []
    for number, line in enumerate(_lines(path), 1):
        parts = line.strip("\r").split("\t")
        if len(parts) < 3:
            raise DataError(f"{path}, line {number}: want label, source and text, split by tabs")
        texts.append(_unescape(PAIR.join(parts[2:4])))
    if not texts:
        raise DataError(f"{path} holds no texts")
    return texts


# -- scoring -------------------------------------------------------------------------------------------------
@torch.no_grad()
def _answers(victim: Victim, texts: list[str]) -> list[int]:
    out: list[int] = []
    for start in range(0, len(texts), CHUNK):
        scores = victim(texts[start : start + CHUNK])
        out += (scores.argmax(1) if scores.dim() == 2 else scores.long()).tolist()
    return out


def _bare(text: str) -> str:
    """As BODEGA compares characters: case and blanks do not count."""
    return "".join(text.lower().split())


def rescore(claims: list[Claim], originals: list[str], victim: Victim) -> Rescored:
    """Check every line against our original and the victim's own answers.

    A success is an answer other than the victim's to the original; the meaning is our calibrated validity, in place of
    BLEURT.

    Raises:
        DataError: when the file has other texts than the originals in number.
    """
    if len(claims) != len(originals):
        raise DataError(
            f"the submission has {len(claims)} lines for {len(originals)} originals: both list the same texts, in order"
        )
    changed = [c.modified if c.succeeded and c.modified.strip() else o for c, o in zip(claims, originals, strict=True)]
    before, after = _answers(victim, originals), _answers(victim, changed)
    kept = validity.score(originals, changed)
    rows = []
    for i, (claim, original, new) in enumerate(zip(claims, originals, changed, strict=True)):
        success = claim.succeeded and new != original and before[i] != after[i]
        character = 1.0 - char_edit(_bare(original), _bare(new))
        rows.append(Row(
            i, claim.succeeded, success, _bare(claim.original) == _bare(original), before[i], after[i],
            float(kept[i]), character, float(kept[i]) * character if success else 0.0,
        ))  # fmt: skip
    won, bar = [r for r in rows if r.success], validity.bar()
    return Rescored(
        texts=len(rows), claimed=sum(c.succeeded for c in claims), verified=len(won),
        success_rate=len(won) / len(rows), success_ci=wilson(len(won), len(rows)),
        valid_success_rate=sum(r.kept >= bar for r in won) / len(rows), kept_mean=mean([r.kept for r in won]),
        character_mean=mean([r.character for r in won]), score=mean([r.score for r in rows]),
        queries_claimed=mean([float(c.queries) for c in claims]),
        false_claims=[r.id for r in rows if r.claimed and not r.success],
        altered_originals=[r.id for r in rows if not r.same_original], rows=rows,
    )  # fmt: skip


def rescore_files(submission: str | Path, originals: str | Path, victim: Any) -> Rescored:
    """The same from files, and a victim or its name."""
    from advgym.core.task import load_victim
    from advgym.core.victim import as_victim

    made = load_victim(victim) if isinstance(victim, str) else as_victim(victim)
    return rescore(read_submission(submission), read_originals(originals), made)
