"""Perturbed texts as an HTML fragment for reports and as a line for terminals."""

from __future__ import annotations

from html import escape
from typing import Any

from torch import Tensor

from advgym.envs.text.words import TextBatch


def _sites(batch: TextBatch, row: int, form: Tensor) -> list[tuple[str, str | None]]:
    """(old text, new text or None where it stays) of every site in use."""
    text = batch.lexicon.vocabulary.text
    new = {site: choice for site, choice in form.tolist() if site >= 0}
    out: list[tuple[str, str | None]] = []
    for site, ids in enumerate(batch.clean[row].tolist()):
        if any(i >= 0 for i in ids):
            swap = text(batch.segments[row, site, new[site]].tolist()) if site in new else None
            out.append((text(ids), swap))
    return out


def line(batch: TextBatch, row: int, form: Tensor, task: Any = None) -> str:
    """One line of plain text: `the film(->movie) is fine`; sentences as `[old -> new]`, a deleted site as `->`."""
    sentences = batch.width > 1
    parts = []
    for old, new in _sites(batch, row, form):
        if new is None:
            parts.append(old)
        else:
            parts.append(f"[{old} -> {new}]" if sentences else f"{old}(->{new})")
    return " ".join(parts)


_STYLE = "margin:0;line-height:1.7;color:var(--ink);overflow-wrap:anywhere"
_OLD = "color:var(--muted);text-decoration:line-through;text-decoration-color:var(--bad)"
_NEW = "color:var(--accent);font-weight:700;text-decoration:none;background:none"
_CHIP = "border:1px solid var(--line);border-radius:999px;padding:.1em .6em;font-size:.85em;white-space:nowrap"


def show(batch: TextBatch, row: int, form: Tensor, before: Tensor, after: Tensor, task: Any = None) -> str:
    """The text with what was replaced struck through and what came in bold, and the victim's answers to both."""
    sites = _sites(batch, row, form)
    if batch.width > 1:
        body = "".join(_sentence(old, new) for old, new in sites)
    else:
        body = f'<p style="{_STYLE}">{" ".join(_word(old, new) for old, new in sites)}</p>'
    return f'<div class="text-edit">{body or "<p>(an empty text)</p>"}{_answers(before, after, task)}</div>'


def _word(old: str, new: str | None) -> str:
    if new is None:
        return escape(old)
    added = f' <ins style="{_NEW}">{escape(new)}</ins>' if new else ""
    return f'<del style="{_OLD}">{escape(old)}</del>{added}'


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
