"""Packages that not everybody has: one error for all that are missing, with the line that installs them here.

That line is true of this installation: a checkout, a git address and a wheel name themselves; elsewhere it names the
packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import tomllib
from collections.abc import Callable
from functools import cache, wraps
from importlib import metadata
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from advgym.errors import AdvgymError

P = ParamSpec("P")
R = TypeVar("R")
HOME = Path(__file__).resolve().parents[1]


class Missing(AdvgymError, ImportError):
    """A package that this needs is not installed; the text says how it is."""


@cache
def table() -> dict[str, dict[str, str]]:
    """Of each extra: import names and distributions ("none": of no extra)."""
    found: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return found


def extra_of(module: str) -> str | None:
    """The extra that brings a module; "none" for those that we know and no extra brings; None for all others."""
    top = module.partition(".")[0]
    return next((extra for extra, modules in table().items() if top in modules), None)


def install(extra: str) -> str:
    """The line that adds an extra to this installation."""
    pip = "pip install" if importlib.util.find_spec("pip") else "uv pip install"
    if (HOME.parent / "pyproject.toml").is_file():
        return f"{pip} -e '{HOME.parent}[{extra}]'"
    url = _origin()
    if url:
        return f"{pip} 'advgym[{extra}] @ {url}'"
    return f"{pip} {' '.join(dict.fromkeys(table()[extra].values()))}"


def _origin() -> str:
    """Where this installation came from (PEP 610), or "" where nobody wrote it down."""
    try:
        text = metadata.distribution("advgym").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return ""
    about = json.loads(text or "{}")
    vcs = about.get("vcs_info", {}).get("vcs", "")
    return f"{vcs}+{about['url']}" if vcs else str(about.get("url", ""))


def missing(module: str, what: str = "this") -> Missing | None:
    """The error of a package that is not there, or None for one that no extra of ours is about."""
    top, extra = module.partition(".")[0], extra_of(module)
    if extra is None:
        return None
    name = table()[extra][top]
    if extra == "none":
        pip = "pip install" if importlib.util.find_spec("pip") else "uv pip install"
        return Missing(f"{what} needs {top}, which is not installed: {pip} {name}", name=top)
    return Missing(f"{what} needs {top}, which is not installed: {install(extra)}", name=top)


def absent(error: ImportError, what: str = "this") -> Missing | None:
    """The same, of an import that failed because a package is not there."""
    if isinstance(error, Missing):
        return error
    return missing(error.name or "", what) if isinstance(error, ModuleNotFoundError) else None


def need(module: str, what: str) -> Any:
    """The imported module.

    Args:
        what: needs it, as the error begins: "the page of an audit".

    Raises:
        Missing: where it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise absent(error, what) or AdvgymError(f"{what} needs {module}, which does not import: {error}") from None


def says_missing(function: Callable[P, R]) -> Callable[P, R]:
    """Whatever package it finds missing, it says so as `Missing`."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            told = absent(error)
            if told is None:
                raise
            raise told from error

    return called
