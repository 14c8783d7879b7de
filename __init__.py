"""Not a package: what Python finds first when a script stands beside a checkout that is called `advgym`.

`import advgym` there would be this folder. It becomes the installed package instead (an editable one is the folder
within), and where none is installed the folder within.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path


def _package() -> None:
    """Put the real package in this module's place."""
    here = Path(__file__).resolve().parent
    elsewhere = [place for place in sys.path if Path(place or ".", "advgym").resolve() != here]
    spec = None
    for finder in sys.meta_path:
        path = elsewhere if finder is importlib.machinery.PathFinder else None
        found = getattr(finder, "find_spec", lambda *_: None)("advgym", path)
        if found is not None and found.loader is not None and found.origin:  # no namespace
            spec = found
            break
    if spec is None:
        inside = here / "advgym"
        spec = importlib.util.spec_from_file_location(
            "advgym", inside / "__init__.py", submodule_search_locations=[str(inside)]
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules["advgym"] = module
    spec.loader.exec_module(module)


if __name__ == "advgym":
    _package()
