"""Perturbed texts as an HTML fragment for reports and as a line for terminals."""

from __future__ import annotations

import unicodedata
from html import escape
from typing import Any

from torch import Tensor

from advgym.envs.text.inputs.spacing import CLOSE, PAIR
from advgym.envs.text.perturb.words import TextBatch
from advgym.lib.canvas import Frame, words


def line(batch: TextBatch, row: int, form: Tensor, task: Any = None) -> str:
    """One line of plain text: `the film(->movie) is fine`; sentences as `[old -> new]`, a deleted site as `->`.

    What is put in stands as `(->really)`, and what cannot be seen as its code point.
    """
    sentences = batch.width > 1
    parts = []
    for old, new in batch.pieces(row, form):
        if new is None:
            parts.append(apart(old))
        else:
            parts.append(f"[{old} -> {new}]" if sentences else f"{old}(->{seen(new)})")
    return " ".join(parts)


def apart(text: str) -> str:
    """The other text of a pair with a bar where the two meet."""
    return text.replace(PAIR, " | ").replace(CLOSE, "")


def seen(text: str) -> str:
    """The text with the code points of what cannot be seen: `fi<U+200B>lm`."""
    if text.isascii():
        return text
    return "".join(f"<U+{ord(c):04X}>" if unicodedata.category(c) == "Cf" else c for c in text)


_STYLE = "margin:0;line-height:1.7;color:var(--ink);overflow-wrap:anywhere"
_OLD = "color:var(--muted);text-decoration:line-through;text-decoration-color:var(--bad)"
_NEW = "color:var(--accent);font-weight:700;text-decoration:none;background:none"
_CHIP = "border:1px solid var(--line);border-radius:999px;padding:.1em .6em;font-size:.85em;white-space:nowrap"


def show(batch: TextBatch, row: int, form: Tensor, before: Tensor, after: Tensor, task: Any = None) -> str:
    """The text with what was replaced struck through and what came in bold, and the victim's answers to both."""
    sites = batch.pieces(row, form)
    if batch.width > 1:
        body = "".join(_sentence(old, new) for old, new in sites)
    else:
        body = f'<p style="{_STYLE}">{" ".join(_word(old, new) for old, new in sites)}</p>'
    return f'<div class="text-edit">{body or "<p>(an empty text)</p>"}{_answers(before, after, task)}</div>'


def _word(old: str, new: str | None) -> str:
    if new is None:
        return escape(apart(old))
    gone = f'<del style="{_OLD}">{escape(old)}</del>' if old else ""
    return " ".join([gone] * bool(gone) + [f'<ins style="{_NEW}">{escape(seen(new))}</ins>'] * bool(new))


def _sentence(old: str, new: str | None) -> str:
    if new is None:
        return f'<p style="{_STYLE}">{escape(old)}</p>'
    mark = "border-left:3px solid {};padding:.1em .6em;margin:.2em 0;background:var(--panel)"
    return (
        f'<p style="{_STYLE};{mark.format("var(--bad)")}"><del style="{_OLD}">{escape(old)}</del></p>'
        f'<p style="{_STYLE};{mark.format("var(--accent)")}"><ins style="{_NEW}">{escape(new) or "(deleted)"}</ins></p>'
    )


def _answers(before: Tensor, after: Tensor, task: Any) -> str:
    say = str if task is None else task.goal.describe
    changed = before.tolist() != after.tolist()
    colour = "var(--bad)" if changed else "var(--good)"
    return (
        f'<p style="margin:.5em 0 0;color:var(--muted)"><span style="{_CHIP}">{escape(say(before))}</span> '
        f'<span aria-label="becomes">&rarr;</span> '
        f'<span style="{_CHIP};color:{colour};border-color:{colour}">{escape(say(after))}</span></p>'
    )


def draw(batch: TextBatch, row: int, form: Tensor) -> Frame:
    """A frame of the text, uint8 (H, W, 3) of a fixed size: what went is struck through, what came is coloured."""
    return marked(batch.pieces(row, form))


def marked(sites: list[tuple[str, str | None]]) -> Frame:
    """The same of (old text, new text or None where it stays)."""
    pieces = []
    for old, new in sites:
        pieces += [(apart(old), "")] if new is None else [(old, "gone"), (seen(new), "added")]
    return words(pieces)
