"""What `mkdocs` calls: pages that are made rather than written, and their places in the navigation."""

from __future__ import annotations

from pathlib import Path

import site_agents
import site_api
import site_notebooks
import site_root
import site_tasks
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
_made: dict[str, str] = {}


def on_config(config):
    """Make the pages, and put them into the navigation."""
    _made.clear()
    sections = {}
    for name, make in (
        ("Tasks", site_tasks.pages), ("Agents", site_agents.agent_pages), ("Defenses", site_agents.defense_pages),
        ("Notebooks", site_notebooks.pages), ("API", site_api.pages), ("Project", site_root.pages),
    ):  # fmt: skip
        pages, sections[name] = make(ROOT)
        _made.update(pages)
    nav = config.nav
    _section(nav, "Learn").extend(sections.pop("Notebooks"))
    _section(nav, "Project").extend(sections.pop("Project"))
    _section(nav, "Guide").extend({"More": more} for more in [_unnamed(nav)] if more)
    place = next(i for i, entry in enumerate(nav) if "Project" in entry)
    nav[place:place] = [{name: entries} for name, entries in sections.items()]
    return config


def on_files(files: Files, config):
    """The made pages as files, and the mark of the boards."""
    for uri, text in _made.items():
        files.append(File.generated(config, uri, content=text))
    mark = ROOT / "leaderboards" / "service" / "static" / "mark.svg"
    files.append(File.generated(config, "assets/mark.svg", abs_src_path=str(mark)))
    return files


def _section(nav, title: str) -> list:
    return next(entry[title] for entry in nav if title in entry)


def _unnamed(nav) -> list[str]:
    """Pages in docs/ that the navigation does not name."""
    named = set(_leaves(nav)) | set(_made)
    written = [p.relative_to(ROOT / "docs") for p in sorted((ROOT / "docs").rglob("*.md"))]
    return [str(p) for p in written if str(p) not in named and p.parts[0] not in ("gen", "sheets")]


def _leaves(nav) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [leaf for entry in (nav.values() if isinstance(nav, dict) else nav) for leaf in _leaves(entry)]
