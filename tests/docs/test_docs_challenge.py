"""docs/challenge.md, run as it stands: its files, its commands in a real shell, a real server; its outputs compared."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import processes
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "challenge.md"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.S)
NUMBER = r"-?\d+(?:\.\d+)?"
# The hidden victim learns for 6 epochs instead of its recipe's 80, which are half a minute; the rest is as it is.
OPENING = """
import sys
from advgym.cli.app import main
from advgym.envs.image.victims import recipes as victims

fit = victims.fit
victims.fit = lambda module, x, y, recipe: fit(module, x, y, {**recipe, "epochs": 6})
sys.exit(main())
"""
VARIES = [  # what an output may have another of: (how it is written, what it stands for)
    (r"s[0-9a-f]{12}\b", "s[0-9a-f]{12}"),
    (r"[0-9a-f]*\.\.\.|advgym_\.\.\.", r"\S+"),
    (r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{8,16}\b", "[0-9a-f]{8,16}"),
    (r"\d{4}-\d\d-\d\d", r"\d{4}-\d\d-\d\d"),
    (NUMBER, NUMBER),
    (r"\s+", r"\s+"),
]


def pattern(line: str) -> str:
    """A line of the page as a regular expression: words as they are, whatever varies by its kind.

    >>> bool(re.search(pattern("entry 351fa14c0f3a7798: 3 of 16"), "  entry 06f5506b50c0815c: 12 of 16"))
    True
    """
    parts = re.split("(" + "|".join(f"{written}" for written, _ in VARIES) + ")", line.strip())
    out = []
    for i, part in enumerate(parts):
        stands = next(meant for written, meant in VARIES if re.fullmatch(written, part)) if i % 2 else re.escape(part)
        out.append(stands)
    return "".join(out)


@pytest.mark.parametrize(
    ("written", "came", "same"),
    [
        ("s464272c3e572 walker on ten/test: scored", "s7bc4b3589a3f walker on ten/test: scored", True),
        ("s464272c3e572 walker on ten/test: scored", "s7bc4b3589a3f walker on ten/test: failed", False),
        ("  entry 351fa14c0f3a7798", "  entry 06f5506b50c0815c", True),
        ("  entry 351fa14c0f3a7798", "  entry", False),
        ("queries 13, success 3", "queries 9, success 7", True),
        ("1,rounded,ben,0.5050,0.75,0.8982", "1,rounded,ben,0.444,0.6875,0.858353562348491", True),
        ("1,rounded,ben,0.5050,0.75,0.8982", "1,rounded,anna,0.444,0.6875,0.858353562348491", False),
    ],
)
def test_outputs_are_compared_by_their_words(written, came, same):
    assert bool(re.search(pattern(written), came)) is same


class Walk:
    """A folder, a shell that remembers its variables, and the server."""

    def __init__(self, root: Path) -> None:
        self.root, self.servers = root, []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        (root / "bin").mkdir()
        (root / "bin" / "opening.py").write_text(OPENING)
        short = f'[ "$1 $2" = "board open" ] && exec {sys.executable} {root}/bin/opening.py "$@"\n'
        for name, first, what in (("advgym", short, f"{sys.executable} -m advgym"), ("python", "", sys.executable)):
            (root / "bin" / name).write_text(f'#!/bin/sh\n{first}exec {what} "$@"\n')
            (root / "bin" / name).chmod(0o755)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("ADVGYM_")} | {
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}", "ADVGYM_CACHE": str(root / "cache"), "COLUMNS": "160",
            "TMPDIR": str(root / "tmp"), "OMP_NUM_THREADS": "1", "HOME": str(root),
        }  # fmt: skip
        (root / "tmp").mkdir()

    def write(self, text: str) -> bool:
        """A file of the page: its first line is `# its/path`."""
        first = re.match(r"# ([\w./-]+\.\w+)\n", text)
        if first is not None:
            path = self.root / first[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return first is not None

    def run(self, script: str) -> str:
        """What a block prints; every command of it has to succeed."""
        script = script.replace("8000", self.port)
        if "advgym serve" in script:
            return self.serve(script)
        state = self.root / "tmp" / "state.sh"
        told = (
            f"touch {state}; . {state}; set -aeo pipefail\n{script}\ndeclare -px > {state}"  # remembers its variables
        )
        done = subprocess.run(["bash", "-c", told], cwd=self.root, env=self.env, capture_output=True, text=True,
                              timeout=800)  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def serve(self, script: str) -> str:
        out = self.root / "serve.out"
        env = self.env | {"ADVGYM_BOARDS": "boards"}
        with out.open("w") as file, (self.root / "serve.err").open("w") as err:
            process = processes.start(shlex.split(script), cwd=self.root, env=env, stdout=file, stderr=err,
                                      start_new_session=True)  # fmt: skip
        self.servers.append(process)

        def answers() -> bool:
            assert process.poll() is None, (self.root / "serve.err").read_text()
            with contextlib.suppress(urllib.error.URLError, OSError):
                self.page("/")
                return True
            return False

        processes.until(answers, "the server", every=0.1)
        return out.read_text()

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return answer.read().decode()

    def close(self) -> None:
        for process in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The whole page, run once: (what each section printed, the folder it ran in)."""
    walk = Walk(tmp_path_factory.mktemp("challenge"))
    try:
        printed: dict[str, str] = {}
        for section in re.split(r"^## ", PAGE.read_text(), flags=re.M)[1:]:
            title, last = section.partition("\n")[0], ""
            for language, text in BLOCK.findall(section):
                if language == "text":
                    compare(title, text, last)
                elif language == "sh":
                    last = walk.run(text)
                    printed[title[0]] = printed.get(title[0], "") + last
                else:
                    assert walk.write(text), f"{title}: a {language} block does not say which file it is"
        yield printed, walk
    finally:
        walk.close()


def compare(title: str, shown: str, came: str) -> None:
    """Every line that the page shows came out, in that order."""
    rest = came
    for line in shown.strip().splitlines():
        found = re.search(pattern(line), rest)
        assert found, f"{title}: no line like {line!r} in what is left of the output:\n{rest}\n-- of --\n{came}"
        rest = rest[found.end() :]


pytestmark = pytest.mark.timeout(900)


@pytest.mark.slow
def test_the_walk_through_comes_to_its_end(walked):
    printed, _ = walked
    assert sorted(printed) == list("12345678")


@pytest.mark.slow
def test_the_dispute_lowers_the_score(walked):
    printed, _ = walked
    before, after = (
        float(re.search(r"^1,rounded,ben,[\d.]+,([\d.]+)", printed[n], re.M)[1]) for n in ("6", "7")
    )  # fmt: skip
    assert after < before < 1.0, "the transfer row breaks some, the dispute more"


@pytest.mark.slow
def test_the_pages_show_what_happened(walked):
    printed, walk = walked
    entries = re.findall(r"entry ([0-9a-f]{16})", printed["6"] + printed["7"])
    old, new = walk.page(f"/entries/{entries[0]}"), walk.page(f"/entries/{entries[1]}")
    assert re.search(f"superseded.*{entries[1]}", old)
    assert re.search(f"Lowered by a dispute.*{entries[0]}", new)
    board = walk.page("/boards/ten/dev/defense")
    assert "rounded" in board
    assert entries[0] not in board
    assert walk.page("/boards/ten/test/attack").count("walker") > 0
    secret = re.search(
        r'"secret": ?"([0-9a-f]{64})"', (walk.root / "data" / "phases" / "ten" / "test.json").read_text()
    )
    assert secret
    assert not list((walk.root / "data" / "secrets").iterdir())
    logs = (walk.root / "serve.err").read_text()
    assert "Traceback" not in logs


@pytest.mark.slow
def test_who_changes_the_copy_is_found_out(walked):
    _, walk = walked
    entry = next(p for p in sorted((walk.root / "copy" / "entries" / "ten").glob("*.json")) if "rows" not in p.name)
    was = entry.read_bytes()
    entry.write_bytes(was.replace(b'"team":"anna"', b'"team":"carl"').replace(b'"team":"ben"', b'"team":"carl"'))
    try:
        done = subprocess.run(["advgym", "verify", "copy"], cwd=walk.root, env=walk.env, capture_output=True, text=True)
    finally:
        entry.write_bytes(was)
    assert done.returncode == 1
    assert "false" in done.stdout
    assert "was changed" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_stops_all_of_it(walked):
    """The last test of this page's server."""
    _, walk = walked
    (server,) = walk.servers
    seen = processes.family(server.pid)
    assert len(seen) > 2  # its worker, and a sandbox
    server.send_signal(signal.SIGINT)
    assert server.wait(300) in (0, 130)
    assert processes.all_gone(seen)
    assert not list((walk.root / "tmp").glob("advgym-*")), "files of a sandbox outlived the server"
    assert "Traceback" not in (walk.root / "serve.err").read_text()
