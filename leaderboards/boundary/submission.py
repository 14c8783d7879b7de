"""The submission's code as it is met in the sandbox: loaded, its entry point found, its failures put in words."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary.wire import Gone

SAID = 500  # characters of a message to the author


class Failure(Exception):
    """The submission cannot be run; `message` says why to the other side."""

    def __init__(self, code: str, text: str = "", *, kind: str = "", file: str = "", line: int = 0) -> None:
        super().__init__(f"{code}: {text}")
        self.message = m.Failed(code, kind[:SAID], file, line, text[:SAID])


def load_module(folder: Path, name: str) -> ModuleType:
    """The submission's module, its folder first on the path so that its own files can be imported.

    Raises:
        Failure: with what its author should change.
    """
    path = folder / f"{name}.py"
    if not path.is_file():
        raise Failure("no-entry-point", f"there is no {name}.py in the submission")
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"submission_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        file = Path(error.filename or path).name
        raise Failure("syntax-error", error.msg, file=file, line=error.lineno or 0) from None
    except ImportError as error:
        raise crashed(error, str(folder), "import-error") from None
    except Gone:
        raise
    except BaseException as error:
        raise crashed(error, str(folder), before="on import: ") from None
    return module


def entry_point(module: ModuleType, name: str, call: str) -> Any:
    """The function of that name."""
    found = getattr(module, name, None)
    if not callable(found):
        raise Failure("no-entry-point", f"{Path(module.__file__ or '').name} has no function {call}")
    return found


def crashed(error: BaseException, folder: str, code: str = "crashed", before: str = "") -> Failure:
    """Class, message and place of an error, the place in the submission's own files where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(folder)]
    place = (own or list(frames))[-1] if frames else None
    file, line = (Path(place.filename).name, place.lineno or 0) if place else ("", 0)
    return Failure(code, before + str(error)[:300], kind=type(error).__name__, file=file, line=line)
