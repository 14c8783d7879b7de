"""The API reference: the public names, and the modules that a reader of the contract meets, from their docstrings."""

from __future__ import annotations

from pathlib import Path

# Page: (title, what it says first, modules whole). The public names of `advgym` come from its own table.
MODULES = {
    "environment": ("Environments", "What `advgym.make` gives, and the same held otherwise.",
                    ["advgym.core.env", "advgym.clients.views", "advgym.clients.single", "advgym.clients.sb3",
                     "advgym.clients.modules", "advgym.clients.check", "advgym.factory", "advgym.errors"]),
    "threat": ("Threat models", "`env.threat`, the two kinds of perturbation, norms.",
               ["advgym.core.threat", "advgym.core.batch", "advgym.core.field", "advgym.core.edits",
                "advgym.core.norms", "advgym.core.goals"]),
    "tasks": ("Tasks and victims", "What a domain's factory makes.",
              ["advgym.core.task", "advgym.core.victim", "advgym.core.offers", "advgym.registry",
               "advgym.lib.settings"]),
    "results": ("Results", "Runs, verdicts, result files, comparisons.",
                ["advgym.judge.run", "advgym.judge.results", "advgym.judge.verdict", "advgym.judge.compare",
                 "advgym.report.page"]),
    "evaluations": ("Audits and studies", "Many attacks on one model, and on many.",
                    ["advgym.evaluations.audit", "advgym.evaluations.study", "advgym.evaluations.certify"]),
    "agents": ("For writing agents", "What attacks share.",
               ["advgym.agents.shared.common", "advgym.agents.shared.once", "advgym.core.rng"]),
}  # fmt: skip


def pages(root: Path):
    """(page: its text), and the navigation."""
    import advgym

    made, nav = {"api/index.md": _names(advgym)}, ["api/index.md"]
    for page, (title, about, modules) in MODULES.items():
        body = "\n\n".join(f"::: {module}\n    options:\n      show_root_full_path: true" for module in modules)
        made[f"api/{page}.md"] = f"# {title}\n\n{about}\n\n{body}\n"
        nav.append({title: f"api/{page}.md"})
    return made, nav


def _names(advgym) -> str:
    """The public names, each with the first line of its docstring, and where it is described."""
    lines = []
    for name in sorted(advgym.__all__, key=str.lower):
        found = getattr(advgym, name)
        first = (found.__doc__ or "").strip().split("\n")[0].replace("|", "\\|")
        lines.append(f"| [`advgym.{name}`][{found.__module__}.{name}] | {first} |")
    table = "\n".join(lines)
    more = ", ".join(f"[{title}]({page}.md)" for page, (title, _, _) in MODULES.items())
    return (f"# API\n\nThe public names of `advgym`; imported when they are first used. By subject: {more}.\n\n"
            f"| name | what it is |\n|---|---|\n{table}\n")  # fmt: skip
