"""Notebooks as pages: their text, their code and what it printed."""

from __future__ import annotations

import json
from pathlib import Path


def pages(root: Path):
    """(page: its text), and the navigation."""
    made, nav = {}, []
    for path in sorted((root / "docs" / "notebooks").glob("*.ipynb")):
        book = json.loads(path.read_text())
        made[f"notebooks/{path.stem}.md"] = text = as_page(book, path.name)
        title = next(line for line in text.splitlines() if line.startswith("# ")).removeprefix("# ")
        nav.append({f"Notebook: {title}": f"notebooks/{path.stem}.md"})
    return made, nav


def as_page(book: dict, file: str) -> str:
    """A notebook as Markdown; pictures that it drew are written into the page."""
    parts = []
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [shown for output in cell["outputs"] for shown in [_output(output)] if shown]
    parts.insert(1, f"[The notebook itself]({file}){{ download }}")
    return "\n\n".join(parts) + "\n"


def _output(output: dict) -> str:
    if output["output_type"] == "stream":
        return _printed("".join(output["text"]))
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="what the cell above drew" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        return f'<div class="fragment">{"".join(data["text/html"])}</div>'
    return _printed("".join(data.get("text/plain", "")))


def _printed(text: str) -> str:
    return f"```text {{ .printed }}\n{text.rstrip()}\n```" if text.strip() else ""
