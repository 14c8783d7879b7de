"""Every command reads what was typed by the same rules: nothing empty, no number that is none, seeds in one range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from advgym.cli.shared.completion import agents, defenses, tasks, victims
from advgym.errors import AdvgymError
from advgym.lib.settings import SEEDS

Function = TypeVar("Function", bound=Callable[..., Any])
MOST = 2**31 - 1  # of a whole number, where an option says no less


class Command(TyperCommand):
    """A command whose words are neither empty nor NaN, infinite or beyond `MOST`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes
            return list(super().parse_args(ctx, args))
        self._check_empty(args)
        try:
            rest: list[str] = super().parse_args(ctx, list(args))
        except Exception as error:  # of whichever click: the whole range is said, not the end that was passed
            parameter = getattr(error, "param", None)
            if parameter is not None and _ends(parameter) != (None, None) and hasattr(error, "message"):
                error.message = f"want {_wanted(parameter)}{_given(parameter, args)}"
            raise
        for parameter in self.params:
            found = ctx.params.get(parameter.name)
            for value in found if isinstance(found, list | tuple) else [found]:
                _check_number(parameter, value)
        return rest

    def _check_empty(self, args: list[str]) -> None:
        """Refuse a word that is empty or blank: a variable of a script that was not set."""
        for i, word in enumerate(args):
            if word == "--":
                return
            name, equals, value = word.partition("=")
            if word.strip() and not (name.startswith("--") and equals and not value.strip()):
                continue
            before = name if equals else args[i - 1] if i and args[i - 1].startswith("-") else ""
            taken = next((p for p in self.params if before and before in p.opts), None)
            takes = str(getattr(taken, "help", None) or "").rstrip(".")
            what = before or "an argument"
            raise AdvgymError(f"{what} is empty" + (f". It takes: {takes}" if takes else "; leave it out, or name one"))


def _ends(parameter: Any) -> tuple[Any, Any]:
    """The least and the most of a number, None for no end; where each version of typer keeps them."""
    kind = getattr(parameter, "type", None)
    low, high = (getattr(parameter, end, None) for end in ("min", "max"))
    return (getattr(kind, "min", None) if low is None else low, getattr(kind, "max", None) if high is None else high)


def _wanted(parameter: Any) -> str:
    """What a number may be, in words."""
    low, high = _ends(parameter)
    told = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)  # typer from 0.29 on
    whole = told is not float and getattr(getattr(parameter, "type", None), "name", "") not in ("float", "float range")
    parts = [] if low is None else [f"of at least {low}"]
    parts += [] if high is None and not whole else [f"at most {MOST if high is None else high}"]
    return f"a {'whole ' * whole}number {' and '.join(parts)}".strip()


def _given(parameter: Any, args: list[str]) -> str:
    """What stands behind an option, for errors; "" where it cannot be told."""
    for word, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in parameter.opts:
            return f", not {(value if equals else following)!r}"
    return ""


def _check_number(parameter: Any, value: Any) -> None:
    """Refuse NaN, infinities, and whole numbers beyond `MOST` where no less is declared."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    large = isinstance(value, int) and _ends(parameter)[1] is None and abs(value) > MOST
    if large or not math.isfinite(value):
        raise AdvgymError(f"{max(parameter.opts, key=len)} is {_wanted(parameter)}, not {value}")


class Typer(typer.Typer):
    """A group all of whose commands are of the class above."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[[Function], Function]:
        return super().command(*args, **{"cls": Command, **kwargs})


# -- the options that many commands have, spelled once ---------------------------------------------------------------
Seed = Annotated[int, typer.Option(metavar="S", min=SEEDS[0], max=SEEDS[1], help="Of all that is drawn.")]
Device = Annotated[str, typer.Option(help="cpu, or cuda:0 ...", metavar="D")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]
TaskName = Annotated[str, typer.Argument(help="As `advgym list tasks` names it.", metavar="TASK", autocompletion=tasks)]
AgentName = Annotated[
    str, typer.Option("--agent", help="A name, a .py file, or a folder with agent.py.", metavar="NAME|PATH",
                      autocompletion=agents),
]  # fmt: skip
Guards = Annotated[
    list[str] | None,
    typer.Option("--defense", metavar="NAME[:K=V,K=V]", help="May be repeated; applied in order.",
                 autocompletion=defenses),
]  # fmt: skip
VictimName = Annotated[str, typer.Option("--victim", help="A name, or transformers:FOLDER.", metavar="NAME",
                                         autocompletion=victims)]  # fmt: skip
