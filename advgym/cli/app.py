"""The command line. Heavy modules are imported inside the commands, so that `advgym --help` is quick."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from advgym.cli.audit import audit
from advgym.cli.augment import augment
from advgym.cli.board import board, new_board
from advgym.cli.certify import certify
from advgym.cli.compare import compare
from advgym.cli.export import export
from advgym.cli.record import baseline, export_, look, rerun
from advgym.cli.rescore import rescore
from advgym.cli.score import score
from advgym.cli.serve import serve, token
from advgym.cli.shared import completion
from advgym.cli.shared.command import AgentName, Device, Guards, Json, Seed, TaskName, Typer
from advgym.cli.study import study
from advgym.cli.submit import cancel, status, submit, test
from advgym.errors import AdvgymError

UNEXPECTED = 70  # sysexits' EX_SOFTWARE
INTERRUPTED = 130  # by Ctrl-C, as shells have it

app = Typer(
    name="advgym",
    help="A domain-general gym for adversarial attacks: one step/reward contract, one budget, one scorer.",
    epilog="Start with [bold]advgym demo[/]. Names take wildcards in [bold]advgym list[/].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
new = Typer(help="Start an agent, a defense or a board of your own.",
                  no_args_is_help=True, rich_markup_mode="rich")  # fmt: skip
app.add_typer(new, name="new")
app.add_typer(board, name="board")
app.add_typer(token, name="token")
new.command("board")(new_board)
board.command("record")(look)
board.command("rerun")(rerun)
board.command("export")(export_)
board.command("baseline")(baseline)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="K=V", help="A setting; `agent.k=v` and `task.k=v` say whose. May be repeated."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from advgym import __version__

        typer.echo(f"advgym {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where index.html and results/ go; may exist.", metavar="DIR")] = Path(
        "demo"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer samples and queries: about a third of the time.")
    ] = False,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> int:
    """Attack five embedded tasks with the agents made for them, then behind defenses; write an HTML report."""
    from advgym.cli.demo import run_demo

    return run_demo(out, quick=quick, device=device, seed=seed, as_json=as_json)


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="tasks, agents, defenses, victims, boards or runtime.", metavar="WHAT",
                            autocompletion=completion.lists),
    ],
    pattern: Annotated[
        str, typer.Argument(help="Of names, with * and ?; of one name its card is shown.", metavar="[PATTERN]",
                            autocompletion=completion.listed),
    ] = "*",
    domain: Annotated[
        str | None, typer.Option(help="Of this domain alone: what stands before the slash.", metavar="D",
                                 autocompletion=completion.domains),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Agents that play this task alone.", metavar="TASK",
                                 autocompletion=completion.tasks),
    ] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """What there is: tasks, agents, defenses, victims, boards, and the runtime of submissions."""
    from advgym.cli.listing import show_list

    return show_list(what, pattern, as_json=as_json, task=task, domain=domain)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="A task; an agent, a defense or a victim, too.", metavar="TASK",
                            autocompletion=completion.tasks),
    ],
    sample: Annotated[int, typer.Option(help="The sample of a task's test split to show.", min=0, metavar="K")] = 0,
    device: Device = "cpu",
    as_json: Json = False,
) -> int:  # fmt: skip
    """A task: a sample, the constraint, the spaces, what it offers, who plays it, and the command to attack it."""
    from advgym.cli.listing import show_one

    return show_one(name, sample, device, as_json=as_json)


@app.command()
def attack(
    task: TaskName,
    agent: AgentName,
    settings: Set = None,
    defense: Guards = None,
    episodes: Annotated[int, typer.Option(help="Samples of the split.", min=1, metavar="N")] = 100,
    lanes: Annotated[int, typer.Option(help="Episodes at once.", min=1, metavar="B")] = 64,
    device: Device = "cpu",
    seed: Seed = 0,
    split: Annotated[str, typer.Option(metavar="S", help="Which samples.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Result file; an interrupted run goes on from it.", metavar="JSON")
    ] = None,
    show: Annotated[int, typer.Option(help="Examples to print.", min=0, metavar="K")] = 0,
    report: Annotated[Path | None, typer.Option(help="An HTML report of this attack.", metavar="HTML")] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="A column that needs a model: perplexity=gpt2. May be repeated.", metavar="COLUMN=MODEL"),
    ] = None,
    target: Annotated[
        str,
        typer.Option(help="What a targeted attack wants of every sample; one each: --set targets=[...].", metavar="T"),
    ] = "",
    clean: Annotated[
        int | None,
        typer.Option(help="Clean accuracy over N samples, the assigned ones among them; all.", min=1, metavar="N"),
    ] = None,
    save_audio: Annotated[
        Path | None, typer.Option(help="Speech: write every pair of clips and their difference as wav.", metavar="DIR")
    ] = None,
    as_json: Json = False,
) -> int:
    """Attack a task with one agent; every success is judged by the verifier."""
    from advgym.cli.attack import run_attack

    return run_attack(
        task, agent, settings or [], defense or [], episodes=episodes, lanes=lanes, device=device, seed=seed,
        split=split, out=out, show=show, report=report, measures=measure, target=target, clean=clean,
        audio=save_audio, as_json=as_json,
    )  # fmt: skip


for _command in (
    audit, certify, study, score, compare, rescore, export, augment, test, submit, status, cancel, serve,
):  # fmt: skip
    app.command()(_command)


@app.command()
def verify(
    result: Annotated[Path, typer.Argument(help="A result file.", metavar="RESULT.JSON")],
    device: Device = "cpu",
    as_json: Json = False,
) -> int:
    """Re-apply and re-score every stored perturbation; exit 1 on any disagreement."""
    from advgym.cli.attack import run_verify

    return run_verify(result, device, as_json=as_json)


@app.command()
def train(
    name: Annotated[
        str, typer.Argument(help="A victim, or a defense with --task.", metavar="NAME",
                            autocompletion=completion.trainable),
    ],
    task: Annotated[
        str | None, typer.Option(help="The task a defense is built for.", metavar="TASK",
                                 autocompletion=completion.tasks),
    ] = None,
    settings: Set = None,
    force: Annotated[bool, typer.Option("--force", help="Train anew, whatever is kept.")] = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Load or train a victim (or build a defense) and print its card."""
    from advgym.cli.train import run_train

    return run_train(name, task, settings or [], force=force, as_json=as_json)


@new.command("agent")
def new_agent(
    path: Annotated[Path, typer.Argument(help="A folder that does not exist, or is empty.", metavar="PATH")],
    kind: Annotated[str, typer.Option(help="field or edits: what the agent plays.", metavar="KIND")] = "field",
) -> int:
    """A folder with a small attack that works, its card, and a test."""
    from advgym.cli.new import write_folder

    return write_folder("agent", path, kind)


@new.command("defense")
def new_defense(
    path: Annotated[Path, typer.Argument(help="A folder that does not exist, or is empty.", metavar="PATH")],
) -> int:
    """A folder with a small defense that works, its card, and a test."""
    from advgym.cli.new import write_folder

    return write_folder("defense", path, "field")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="One of them; the rest of the line goes to it.", metavar="[NAME]")
    ] = None,
) -> int:
    """Run a benchmark of the checkout; without NAME, list them."""
    from advgym.cli.bench import run_bench

    return run_bench(name, list(context.args))


def main(args: list[str] | None = None) -> int:
    """Run the command line; the exit code: 1 for a bad outcome, 2 for a user's error, 70 for ours, 130 for Ctrl-C."""
    _quiet()
    from advgym.cli.printing import notice
    from advgym.cli.pulse import kept, watch

    try:
        with watch(sys.argv[1:] if args is None else args, notice):
            code = app(args=args, prog_name="advgym", standalone_mode=False)
        if code == INTERRUPTED:  # typer's answer to Ctrl-C
            return _interrupted(kept)
        return code if isinstance(code, int) else 0
    except AdvgymError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _interrupted(kept)
    except BrokenPipeError:  # `advgym list tasks | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if isinstance(error, ImportError) and (told := _absent(error)):
            return _fail(told, 2)
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # typer's usage errors, of whichever click
            return _usage(error)
        if type(error).__name__ in ("Abort", "Exit"):
            return int(getattr(error, "exit_code", 130))
        if os.environ.get("ADVGYM_TRACEBACK"):
            raise
        text = f"{type(error).__name__}: {error}\nplease report; run with ADVGYM_TRACEBACK=1 for the traceback"
        return _fail(text, UNEXPECTED)


def _interrupted(kept: Callable[[], str]) -> int:
    """The last words after Ctrl-C, which another one does not cut short.

    Not by the console: Ctrl-C may have come while it wrote a line, which it would write once more.
    """
    ours = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ours else None
    try:
        sys.stderr.write(f"advgym: interrupted: {kept()}\n")
        sys.stderr.flush()
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
    return INTERRUPTED


def _absent(error: ImportError) -> str:
    """Which package is missing and how it is installed; nothing for another failure."""
    from advgym.lib.extras import absent

    return str(absent(error) or "")


def _fail(text: str, code: int) -> int:
    from advgym.cli.printing import err

    err().print(f"[bold red]advgym:[/] {_escape(text)}", soft_wrap=True, highlight=False)
    return code


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _usage(error: Any) -> int:
    """What was wrong, and where the help is."""
    command = error.ctx.command_path if getattr(error, "ctx", None) is not None else "advgym"
    message = error.format_message().strip()
    if not message:  # no arguments: the help was shown
        return int(error.exit_code)
    return _fail(f"{message}\nTry `{command} --help`.", int(error.exit_code))


def _quiet() -> None:
    """Notices of ours go to stderr in one line each; warnings of other libraries do not."""
    from advgym.cli.printing import Notices

    log = logging.getLogger("advgym")
    if not any(isinstance(h, Notices) for h in log.handlers):
        log.addHandler(Notices())
        log.propagate = False
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("default", message="advgym ")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: small models would pay for their spinning


if __name__ == "__main__":
    sys.exit(main())
