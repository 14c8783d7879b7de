"""Execute the notebooks of docs/ with nbclient (the docs extra) and write what they print into them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def executed(path: Path):
    """The notebook with fresh outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: with the cell and its traceback.
    """
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # times, of no use to a reader
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]  # warnings of this machine's packages
    return book


if __name__ == "__main__":
    import nbformat

    for one in sorted(NOTEBOOKS.glob(sys.argv[1] if len(sys.argv) > 1 else "*.ipynb")):
        nbformat.write(executed(one), one)
        print(one.name)
