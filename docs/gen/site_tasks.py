"""A page per task, from its row in the registry and, where it has been played, its sheet (`docs/sheets`)."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

DOMAINS = {"image": "Images", "text": "Texts", "graph": "Graphs", "speech": "Speech"}
LEVELS = ("white-box", "score", "decision", "transfer")


def page_of(name: str) -> str:
    """Where a task's page lies."""
    return f"tasks/{name}.md"


@cache
def sheets(root: Path) -> dict[str, dict[str, Any]]:
    """What `benchmarks.core.task_sheets` measured, by task."""
    found = (json.loads(path.read_text()) for path in sorted((root / "docs" / "sheets").glob("*.json")))
    return {sheet["task"]: sheet for sheet in found}


def players(sheet: dict[str, Any]) -> list[Any]:
    """The agents that play a task as its row has it."""
    from advgym import registry
    from advgym.core.offers import lacking

    offered = frozenset(sheet["offers"])
    return [a for a in registry.agents().values() if sheet["kind"] in a.kinds and not lacking(a, offered)]


def pages(root: Path):
    """(page: its text), and the navigation."""
    from advgym import registry

    rows, known = registry.tasks(), sheets(root)
    made = {"tasks/index.md": _index(rows, known)}
    made |= {page_of(name): _page(name, row, known.get(name)) for name, row in rows.items()}
    nav: list[Any] = ["tasks/index.md"]
    for domain, title in DOMAINS.items():
        nav.append({title: [{n.split("/")[1]: page_of(n)} for n in rows if n.split("/")[0] == domain]})
    return made, nav


def _index(rows, known) -> str:
    parts = ["# Tasks\n\nA task is a domain, a data set, a victim and a threat model: a row of a `tasks.toml`. Marked: "
             "● plays at once, its data are embedded; ○ reads data under `$ADVGYM_DATA`; ◇ waits for your own data or "
             "model. `advgym list tasks` prints the same.\n"]  # fmt: skip
    for domain, title in DOMAINS.items():
        parts.append(f"## {title}\n\n| | task | what is changed | knowledge | queries |\n|---|---|---|---|---|")
        for name, row in rows.items():
            if name.split("/")[0] == domain:
                most = row.get("knowledge", "white-box")
                link = f"[`{name}`]({name}.md)"
                parts.append(f"| {_mark(row, known.get(name))} | {link} | {row.get('title', '')} | {most} "
                             f"| {row.get('queries', 500):,} |")  # fmt: skip
        parts.append("")
    return "\n".join(parts)


def _mark(row, sheet) -> str:
    if "dataset" not in row:
        return "◇"
    return "●" if sheet and embedded(row) else "○"


def embedded(row: dict[str, Any]) -> bool:
    """Whether a task's data ship with advgym."""
    return str(row.get("dataset", "")).startswith(("digits", "synth", "karate", "sbm"))


def _page(name: str, row: dict[str, Any], sheet: dict[str, Any] | None) -> str:
    agent = sheet["curves"][-1]["agent"] if sheet and sheet["curves"] else "random-search"
    parts = [f"# {name}\n\n{row.get('title', '')}.\n", _picture(sheet), _facts(name, row, sheet)]
    parts.append(f"## Play it\n\n```console\n{_command(name, row, sheet, agent)}\n```\n\n{_gym(name, row)}\n")
    if sheet:
        parts += [_spaces(sheet), _curve(name, sheet)]
    parts.append(_options(row))
    parts.append(_who(name, row, sheet))
    return "\n".join(part for part in parts if part)


def _picture(sheet) -> str:
    if not sheet or not sheet["example"]:
        return ""
    e = sheet["example"]
    inside = e["fragment"] or f"<p>{escape(e['line'])}</p>"
    with_ = f", shown with {_words(sheet['made_with'])}" if sheet["made_with"] else ""
    asked = f"{e['queries']} {'query' if e['queries'] == 1 else 'queries'}"
    how = "" if e.get("success", True) else " It failed."
    said = escape(f"By {e['agent']}: sample {e['sample']}, {asked}, distance {e['distance']}{with_}.{how}")
    return f'<figure class="sheet">\n<div class="fragment">{inside}</div>\n<figcaption>{said}</figcaption>\n</figure>\n'


def _facts(name, row, sheet) -> str:
    from advgym import registry

    victims = registry.victims()

    def victim(v):
        title = victims.get(v, {}).get("title")
        return f"`{v}`" + (f", {title}" if title else "")

    data = row.get("dataset")
    same = sorted(v for v, r in victims.items() if data and r.get("dataset", r.get("corpus")) == data
                  and v not in (row.get("victim"), row.get("surrogate")))  # fmt: skip
    sizes = ", ".join(f"{many:,} {split}" for split, many in sheet["sizes"].items()) if sheet and data else ""
    facts = {
        "Perturbation": f"[{sheet['kind']}](../../contract.md)" if sheet else "",
        "Data": f"`{data}`" + (f" ({sizes})" if sizes else "") if data else "your own: `samples=` or `dataset=`",
        "Victim": victim(row["victim"]) if "victim" in row else "your own: `victim=`",
        "Surrogate": victim(row["surrogate"]) if "surrogate" in row else "",
        "Other victims": ", ".join(f"`{v}`" for v in same),
        "Knowledge": f"at most {row.get('knowledge', 'white-box')}",
        "Goals": ", ".join(f"`{g}`" for g in row.get("goals", ["untargeted"])),
        "Constraint": _words(row.get("constraint", {})),
        "Budget": f"{row.get('queries', 500):,} queries, {row.get('gradients', row.get('queries', 500)):,} gradients",
        "Ends": "with the budget: the least distortion is wanted" if row.get("least") else "with the first success",
    }
    lines = "\n".join(f"| {key} | {value} |" for key, value in facts.items() if value)
    return f"| | |\n|---|---|\n{lines}\n"


def _words(table) -> str:
    return ", ".join(f"`{key}={json.dumps(v) if not isinstance(v, str) else v}`" for key, v in table.items())


def _command(name, row, sheet, agent) -> str:
    given = {} if "dataset" in row else (sheet or {}).get("made_with") or {}
    extra = "".join(f" --set {k}={v}" for k, v in given.items())
    if "dataset" not in row and not given:
        extra = " --set victim=YOURS --set dataset=YOURS"
    return f"advgym attack {name} --agent {agent} --episodes 16 --out r.json{extra}\nadvgym verify r.json"


def _gym(name, row) -> str:
    from advgym.ids import gym_id

    if "dataset" not in row:
        return "From Python with your own objects: [victims and data](../../own-victims.md)."
    code = f'import gymnasium\nimport advgym  # registers the ids\n\nenv = gymnasium.make("{gym_id(name)}")'
    said = "That is the [edit view](../../rl.md); `advgym.make` gives [whole proposals](../../contract.md)."
    return f"```python\n{code}\n```\n\n{said}"


def _spaces(sheet) -> str:
    spaces = sheet["spaces"]
    rows = "\n".join(f"| `{key}` | `{space}` |" for key, space in spaces["observation"].items())
    return (f"## Spaces\n\nOf one lane. A proposal (`advgym.make`): `{spaces['proposal']}`. An action of the edit view "
            f"(Gymnasium): `{spaces['action']}`. It observes:\n\n| key | space |\n|---|---|\n{rows}\n")  # fmt: skip


def _curve(name, sheet) -> str:
    from advgym.report.svg import Line, figure

    if not sheet["curves"]:
        return ""
    lines = [Line(c["agent"], c["knowledge"], i, [tuple(p) for p in c["points"]], c["agent"] == "random-search")
             for i, c in enumerate(sheet["curves"])]  # fmt: skip
    rows = "\n".join(
        f"| [`{c['agent']}`](../../agents/{c['agent']}.md) | {c['knowledge']} | {100 * c['success']:.0f} % of "
        f"{c['attacked']} | {100 * c['interval'][0]:.0f}–{100 * c['interval'][1]:.0f} | {c['queries']:g} |"
        for c in sheet["curves"]
    )
    with_ = f" with {_words(sheet['made_with'])}" if sheet["made_with"] else ""
    return (
        f'## Success against queries\n\n<figure class="sheet curve">{figure(lines, name)}</figure>\n\n'
        f"{sheet['episodes']} samples of the split `{sheet['split']}`, {sheet['queries']} queries, defaults, seed "
        f"{sheet['seed']}{with_}, advgym {sheet['versions']['advgym']}; measured by "
        f"`python -m benchmarks.core.task_sheets '{name}'`. Few samples: read the intervals.\n\n"
        f"| agent | told | success, % | 95 % | queries, median |\n|---|---|---|---|---|\n{rows}\n"
    )


def _options(row) -> str:
    table = row.get("constraint", {})
    if not table:
        return ""
    lines = "\n".join(f"| `{key}` | `{json.dumps(value)}` |" for key, value in table.items())
    return (f"## Options\n\n`--set NAME=VALUE`, or keyword arguments of `advgym.make`, beside `knowledge`, `goal`, "
            f"`queries`, `gradients`, `least`, `split`.\n\n| constraint | default |\n|---|---|\n{lines}\n")  # fmt: skip


def _who(name, row, sheet) -> str:
    from advgym import registry

    if not sheet:
        return (f"## Who plays it\n\nIts data were not there for this page; `advgym list agents --task {name}` "
                "says who fits.\n")  # fmt: skip
    fit = players(sheet)
    parts = ["## Who plays it\n"]
    for level in LEVELS:
        names = [a.name for a in fit if a.knowledge == level]
        if names and LEVELS.index(level) >= LEVELS.index(row.get("knowledge", "white-box")):
            parts.append(f"- {level}: " + ", ".join(f"[`{n}`](../../agents/{n}.md)" for n in names))
    domain = name.split("/")[0]
    guards = [d.name for d in registry.defenses().values()
              if (not d.domains or domain in d.domains) and sheet["kind"] in d.kinds]  # fmt: skip
    if guards:
        parts.append("\nDefenses for its victim: " + ", ".join(f"[`{n}`](../../defenses/{n}.md)" for n in guards) + ".")
    return "\n".join(parts) + "\n"
