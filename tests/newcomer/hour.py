"""A newcomer's first steps in a fresh clone, with what each took: `python tests/newcomer/hour.py [--fresh]`.

Without `--fresh` in the environment that runs it; with it in one that `make setup` makes in the clone.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# What Python itself says where Ctrl-C meets a finaliser: nobody can catch it.
IGNORED = re.compile(r"Exception ignored in:.*?\n(?=\S*(?:KeyboardInterrupt))", re.S)

ROOT = Path(__file__).resolve().parents[2]
ATTACK = ["attack", "image/digits-linf", "--agent", "pgd"]


class Step(NamedTuple):
    """What was tried: its exit code, seconds, CPU seconds, all that it wrote, and why that is wrong ("": it is not)."""

    item: str
    code: int
    wall: float
    cpu: float
    said: str
    wrong: str


def spent() -> float:
    """CPU seconds of the children that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def size(folder: Path) -> float:
    """Megabytes of the files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()) / 1e6


class Newcomer:
    """Who sits in the folder that holds the clone, and runs commands."""

    def __init__(self, home: Path, python: str = sys.executable) -> None:
        self.home, self.clone, self.python = home, home / "advgym", python
        self.steps: list[Step] = []
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ADVGYM_DATA")}
        self.env = {**kept, "ADVGYM_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def run(
        self, item: str, command: list[str], code: int = 0, says: str = "", where: Path | None = None,
        stop: Callable[[str], bool] | None = None,
    ) -> str:  # fmt: skip
        """One step; `stop` looks at what was written so far and presses Ctrl-C."""
        started, before, lines = time.perf_counter(), spent(), []
        run = subprocess.Popen(
            command, cwd=where or self.home, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

        def read() -> None:
            for line in run.stdout or ():
                lines.append(line)
                if stop is not None and stop(line):
                    run.send_signal(signal.SIGINT)

        reader = threading.Thread(target=read)
        reader.start()
        got = run.wait(timeout=3600)
        reader.join()
        said = "".join(lines)
        wrong = "" if got == code else f"exit {got}, not {code}"
        wrong = wrong or ("" if re.search(says, said) else f"does not say {says!r}")
        ours = IGNORED.sub("", said)
        wrong = wrong or next((f"says {word!r}" for word in ("Traceback", "please report") if word in ours), "")
        self.steps.append(Step(item, got, time.perf_counter() - started, spent() - before, said, wrong))
        return said

    def advgym(self, item: str, *words: str, **expected: object) -> str:
        """A command, in the clone."""
        return self.run(item, [self.python, "-m", "advgym", *words], where=self.clone, **expected)  # type: ignore[arg-type]


def own_model() -> str:
    """README's block on one's own model."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    return next(block for block in blocks if "def victim" in block)


def play(home: Path, fresh: bool = False) -> list[Step]:
    """All steps, in order."""
    who = Newcomer(home)
    who.run("git clone", ["git", "clone", "--quiet", str(ROOT), "advgym"])
    if fresh:
        who.run("make setup", ["make", "setup", f"PYTHON={sys.executable}"], where=who.clone, says="GB on the disk")
        who.python = str(who.clone / ".venv" / "bin" / "python")
    else:
        who.run("make -n setup", ["make", "-n", "setup"], where=who.clone, says="GB on the disk")
    who.advgym("advgym --help", "--help", says="audit")
    who.run("beside the clone", [who.python, "-c", "import advgym; print(advgym.attack)"], says="function attack")
    (home / "mine.py").write_text(own_model())
    who.run("own model", [who.python, "mine.py"], says=r"\d+% of \d attacked, [\d.]+ queries each")
    r = str(home / "r.json")
    who.advgym("attack", *ATTACK, "--episodes", "4", "--out", r, says="(?s)loading PyTorch.*4 of 4 samples attacked")
    who.advgym("verify", "verify", r, says="true")
    who.advgym("audit", "audit", "digits-cnn", "--budget", "quick", "--episodes", "8", says="robust accuracy")
    who.advgym("wrong option", *ATTACK, "--episode", "4", code=2, says="No such option")
    who.advgym("wrong name", "attack", "image/digits", "--agent", "pgd", code=2, says="did you mean")
    who.advgym("missing file", "verify", "nothing.json", code=2, says="cannot read nothing.json")
    who.advgym(
        "Ctrl-C", "attack", "image/digits-linf", "--agent", "square", "--episodes", "450", "--lanes", "8", "--out",
        str(home / "s.json"), code=130, says="interrupted: (no batch was finished|[0-9]+ finished samples)",
        stop=lambda line: "at most" in line,
    )  # fmt: skip
    if fresh:
        who.advgym("demo", "demo", "--quick", "--out", str(home / "demo"), says="report")
    return who.steps


def main() -> int:
    """The table; 1 where a step went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="make setup in the clone: gigabytes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = play(Path(folder), args.fresh)
        print(f"{'step':<18}{'exit':>5}{'wall s':>9}{'CPU s':>8}")  # noqa: T201
        for step in steps:
            print(f"{step.item:<18}{step.code:>5}{step.wall:>9.1f}{step.cpu:>8.1f}  {step.wrong}")  # noqa: T201
        clone = Path(folder) / "advgym"
        venv = size(clone / ".venv") if args.fresh else 0.0
        print(f"clone {size(clone) - venv:.0f} MB" + (f", .venv {venv:,.0f} MB" if args.fresh else ""))  # noqa: T201
    return int(any(step.wrong for step in steps))


if __name__ == "__main__":
    sys.exit(main())
