"""A page per agent and per defense: docstring, source, settings with ranges and defaults, needs, tasks it plays."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import site_tasks


def agent_pages(root: Path):
    """(page: its text), and the navigation."""
    from advgym import registry

    told, agents = sources((root / "docs" / "agents.md").read_text()), registry.agents()
    plays: dict[str, list[str]] = {}
    for task, sheet in site_tasks.sheets(root).items():
        for a in site_tasks.players(sheet):
            plays.setdefault(a.name, []).append(task)
    made = {"agents/index.md": _agent_index(agents, told)}
    for name, a in agents.items():
        made[f"agents/{name}.md"] = _agent(a, told.get(name, ""), plays.get(name, []), site_tasks.sheets(root))
    return made, ["agents/index.md", *({name: f"agents/{name}.md"} for name in agents)]


def defense_pages(root: Path):
    """(page: its text), and the navigation."""
    from advgym import registry

    guards = registry.defenses()
    head = ("# Defenses\n\nA defense wraps a victim and is one: `advgym attack TASK --agent pgd --defense NAME`. "
            "[What each does](../defenses.md).\n\n| defense | guards | what it does |\n|---|---|---|\n")  # fmt: skip
    made = {
        "defenses/index.md": head
        + "\n".join(f"| [`{n}`]({n}.md) | {_guards(d)} | {_cell(d.summary)} |" for n, d in guards.items())
        + "\n"
    }
    for name, d in guards.items():
        domain = (d.domains or ("image",))[0]
        task = {"image": "image/digits-linf", "text": "text/synth-wordswap", "graph": "graph/sbm-edge",
                "speech": "speech/synth-keyword", "fusion": "fusion/synth-pair"}[domain]  # fmt: skip
        agent = "greedy" if domain in ("text", "graph") else "pgd"
        made[f"defenses/{name}.md"] = (
            f"# {name}\n\n{_doc(d.defend)}\n\n| | |\n|---|---|\n| Guards | {_guards(d)} |\n"
            f"| Perturbations | {', '.join(d.kinds)} |\n| Source | `{_place(d.origin)}` |\n\n"
            f"{_settings(d.defend, d.allowed)}\n"
            f"## Try it\n\n```console\nadvgym attack {task} --agent {agent} --defense {name} --episodes 16\n```\n"
        )
    return made, ["defenses/index.md", *({name: f"defenses/{name}.md"} for name in guards)]


def sources(text: str) -> dict[str, str]:
    """Agent: its paper, from the table of docs/agents.md.

    >>> sources("| `fgsm` `bim` | A 2015; B 2017 | field |")
    {'fgsm': 'A 2015', 'bim': 'B 2017'}
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) > 2:
            names = [n.split(":")[0] for n in re.findall(r"`([^`]+)`", cells[0])]
            papers = cells[1].split("; ")
            for i, name in enumerate(names):
                found.setdefault(name, papers[i] if len(papers) == len(names) else cells[1])
    return found


def _agent_index(agents, told) -> str:
    parts = ["# Agents\n\nAn attack is a function of one environment; what it cannot do without, it declares. "
             "[How they compare, and where they differ from their papers](../agents.md).\n"]  # fmt: skip
    for level in site_tasks.LEVELS:
        parts.append(f"## {level}\n\n| agent | plays | what it does |\n|---|---|---|")
        parts += [f"| [`{n}`]({n}.md) | {', '.join(a.kinds)} | {_cell(a.summary)} |"
                  for n, a in agents.items() if a.knowledge == level]  # fmt: skip
        parts.append("")
    return "\n".join(parts)


def _agent(a, source: str, tasks: list[str], sheets) -> str:
    from advgym.lib.rooms import vocabulary
    from advgym.report.papers import paper_of

    needs = "; ".join(f"`{need}`: {vocabulary()[need]}" for need in a.needs) or "nothing beyond its kind"
    name = f"{a.name}:{a.argument.upper()}" if a.argument else a.name
    paper = source if re.search(r"\d{4}", source) else paper_of(a) or source
    facts = {
        "Paper": paper, "Plays": ", ".join(a.kinds), "Must be told": a.knowledge, "Needs": needs,
        "Proposals a step": a.proposals or "", "Named with": f"`{a.argument}`, as in `{name}`" if a.argument else "",
        "Plays inside it": f"another agent, `{a.inner}=`" if a.inner else "", "Source": f"`{_place(a.origin)}`",
    }  # fmt: skip
    lines = "\n".join(f"| {key} | {value} |" for key, value in facts.items() if value)
    parts = [f"# {a.name}\n\n{_doc(a.attack)}\n\n| | |\n|---|---|\n{lines}\n", _settings(a.attack, a.allowed)]
    task = next((t for t in tasks if not sheets[t]["made_with"]), tasks[0] if tasks else None)
    if task:
        parts.append(f"## Play it\n\n```console\nadvgym attack {task} --agent {name} --episodes 16\n```\n")
    measured = [(t, c) for t in tasks for c in sheets[t]["curves"] if c["agent"] == a.name]
    if measured:
        parts.append("## Measured\n\nWith small budgets, on the pages of tasks (`benchmarks.core.task_sheets`).\n\n"
                     "| task | success, % | 95 % | queries, median |\n|---|---|---|---|")  # fmt: skip
        parts += [f"| [`{t}`](../{site_tasks.page_of(t)}) | {100 * c['success']:.0f} of {c['attacked']} | "
                  f"{100 * c['interval'][0]:.0f}–{100 * c['interval'][1]:.0f} | {c['queries']:g} |"
                  for t, c in measured]  # fmt: skip
    rest = ", ".join(f"[`{t}`](../{site_tasks.page_of(t)})" for t in tasks) or "none with the defaults of its row"
    parts.append(f"\n## Tasks that it plays\n\n{rest}.\n")
    return "\n".join(part for part in parts if part)


def _settings(function, allowed) -> str:
    from advgym.lib.settings import described

    rows = described(function, allowed)
    if not rows:
        return "## Settings\n\nNone.\n"
    lines = []
    for name, said in rows.items():
        what, _, default = said.removesuffix(" by default").rpartition("; ") if "; " in said else (said, "", "needed")
        lines.append(f"| `{name}` | {_cell(what)} | `{_cell(default)}` |")
    return (
        "## Settings\n\n`--set NAME=VALUE`.\n\n| setting | allowed | default |\n|---|---|---|\n"
        + "\n".join(lines)
        + "\n"
    )


def _doc(function) -> str:
    bare = inspect.unwrap(getattr(function, "func", function))
    return re.sub(r"(?m)^Args:\n((?:    .*\n?|\n)+)", lambda m: _arguments(m[1]), inspect.getdoc(bare) or "")


def _arguments(block: str) -> str:
    """The lines of an `Args:` section as a list."""
    items = re.split(r"(?m)^    (?=\S)", block)
    return "\n" + "\n".join(f"- {' '.join(item.split())}" for item in items if item.strip()) + "\n"


def _guards(d) -> str:
    return ", ".join(d.domains) or "every domain"


def _place(origin: str) -> str:
    return origin.removeprefix("advgym.").replace(".", "/") + ".py"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
