"""A figure of matplotlib as SVG for a page: its words stay words, and the same figure has the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}


class Drawn:
    """What `drawn` gives: the axes to draw on, and afterwards the SVG."""

    ax: Any
    text = ""


@contextmanager
def drawn(wide: float, high: float) -> Iterator[Drawn]:
    """Axes of so many inches; after the block `text` has the SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context(STYLE):
        found, out = Drawn(), io.StringIO()
        figure, found.ax = pyplot.subplots(figsize=(wide, high))
        yield found
        for side in ("top", "right"):
            found.ax.spines[side].set_visible(False)
        figure.savefig(out, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    text = out.getvalue()
    found.text = text[text.index("<svg") :]
