"""One rule for every command: what a number or a name may be, and where --json, --out, --device and --seed are."""

import json
import math
import subprocess
import sys

import pytest
import typer

from advgym import AdvgymError, attack, audit, make, make_task
from advgym.cli.app import app
from advgym.cli.shared.command import MOST, Command
from advgym.lib.settings import SEEDS, check_seed

# Why a command is without an option that the rule asks for (docs/cli.md).
WRITES_ITS_ARGUMENT = {"new agent", "new defense", "new board", "board export", "export"}
NO_RESULT = {*WRITES_ITS_ARGUMENT, "serve", "bench", "token revoke", "augment"}  # files, a server, a script's own words
PLAYS = {"demo", "attack", "audit", "certify", "study", "score", "verify", "rescore", "test", "serve", "show",
         "board open", "board rerun", "board baseline"}  # fmt: skip
KEEPS = {"demo", "attack", "audit", "certify", "study", "score", "rescore", "test"}
DRAWS = {"demo", "attack", "audit", "certify"}  # a study's seeds are in its file, a board's in its phases


def commands(group=None, path=()):
    """(the words of a command, the command) of the whole tree."""
    group = group or typer.main.get_command(app)
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


ALL = {" ".join(words): command for words, command in commands()}
OPTIONS = {name: {option for p in command.params for option in p.opts} for name, command in ALL.items()}


def test_every_command_is_read_by_the_same_rules():
    assert all(isinstance(command, Command) for command in ALL.values())
    assert {"demo", "list", "show", "attack", "score", "board open", "token new"} <= set(ALL)


@pytest.mark.parametrize("name", sorted(ALL))
def test_the_four_options_are_where_the_rule_says(name):
    has = OPTIONS[name]
    assert ("--json" in has) == (name not in NO_RESULT)
    if name in PLAYS:
        assert "--device" in has
    if name in KEEPS:
        assert "--out" in has
    if name in DRAWS:
        assert "--seed" in has


def test_an_option_means_the_same_everywhere():
    """One spelling, one help and one default for each of them."""
    for option in ("--json", "--device", "--seed"):
        told = {(p.help, p.default, p.metavar) for c in ALL.values() for p in c.params if option in p.opts}
        assert len(told) == 1, (option, told)


def numbers():
    """Every number option of every command: (command, the shortest line around it, the option)."""
    for name, command in ALL.items():
        for p in command.params:
            told = getattr(getattr(p, "type_descriptor", None), "annotation", None)
            if told in (int, float) or (isinstance(p.default, int | float) and not isinstance(p.default, bool)):
                yield pytest.param(name, max(p.opts, key=len), told, id=f"{name} {max(p.opts, key=len)}")


@pytest.mark.parametrize(("name", "option", "kind"), numbers())
def test_no_number_is_a_traceback(advgym, name, option, kind):
    needed = [word for p in ALL[name].params if p.required for word in filled(p)]
    for value in ("1" * 23, "-" + "9" * 23, "nan", "inf", "-inf", "1e999", "", " ", "x", "0x10"):
        answer = advgym(*name.split(), *needed, f"{option}={value}")
        if name == "bench":
            continue
        assert answer.code == 2, (value, answer)
        assert option in answer.err and "please report" not in answer.err and "Traceback" not in answer.err
        assert answer.out == ""


def filled(parameter):
    """Words for a required argument or option."""
    word = "7" if parameter.name in ("sample",) else "nothing-of-this-name"
    return [max(parameter.opts, key=len), word] if parameter.opts[0].startswith("-") else [word]


def names():
    for name, command in ALL.items():
        for p in command.params:
            told = str(getattr(getattr(p, "type_descriptor", None), "annotation", ""))
            if "bool" not in told and "int" not in told and "float" not in told and name != "bench":
                yield pytest.param(name, p, id=f"{name} {p.opts[0]}")


@pytest.mark.parametrize(("name", "parameter"), names())
def test_no_name_is_empty(advgym, name, parameter):
    """A variable of a script that was not set says so, and is not the working folder or a default."""
    if parameter.opts[0] in ("--help", "--version"):
        return
    for blank in ("  ",) if parameter.opts[0] == "--out" else ("",):
        words = [max(parameter.opts, key=len), blank] if parameter.opts[0].startswith("-") else [blank]
        answer = advgym(*name.split(), *words)
        assert answer.code == 2 and "is empty" in answer.err, answer
        assert "please report" not in answer.err and answer.out == ""


def test_what_is_allowed_is_said(advgym):
    line = ("attack", "image/digits-linf", "--agent", "pgd")
    for seed in ("1" * 23, "-1"):
        answer = advgym(*line, "--seed", seed)
        assert answer.code == 2 and f"at least 0 and at most {SEEDS[1]}, not '{seed}'" in answer.err
    answer = advgym(*line, "--episodes", "1" * 23)
    assert f"of at least 1 and at most {MOST}" in answer.err
    answer = advgym("attack", "image/digits-linf", "--agent", "")
    assert "--agent is empty. It takes: A name, a .py file" in answer.err
    answer = advgym("serve", "--port", "70000")
    assert "at most 65535" in answer.err


@pytest.mark.parametrize("text", ["1" * 23, "1" * 5000, "NaN", "Infinity", "1e400", "-1", "", "[", "{}", "null", '""'])
def test_no_setting_is_a_traceback(advgym, text):
    for key in ("agent.steps", "task.queries", "task.eps", "knowledge"):
        answer = advgym("attack", "image/digits-linf", "--agent", "pgd", "--episodes", 1, "--set", f"{key}={text}",
                        "--set", "task.gradients=3")  # fmt: skip
        assert answer.code in (0, 2), answer.err
        assert "please report" not in answer.err


# -- Python ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", [10**22, -1, 1.5, math.nan, "7", True, None, 2**63])
def test_seeds_in_python(seed):
    said = f"a seed is a whole number from 0 to {SEEDS[1]}, not "
    for call in (
        lambda: attack("image/digits-linf", "pgd", episodes=1, seed=seed),
        lambda: audit("digits-cnn", seed=seed),
        lambda: check_seed(seed),
    ):
        with pytest.raises(AdvgymError, match=said.replace("-", ".")):
            call()
    if seed is not None:
        env = make("image/digits-linf", lanes=2)
        for given in (seed, [0, seed]):
            with pytest.raises(AdvgymError, match="a seed is a whole number"):
                env.reset(seed=given)


def test_the_largest_seed_works():
    result = attack("image/digits-linf", "random-search", episodes=2, seed=SEEDS[1], queries=5)
    assert result.seed == SEEDS[1] and all(s.queries <= 5 for s in result.samples)


@pytest.mark.parametrize("blank", ["", "  "])
def test_names_in_python(blank):
    for call in (
        lambda: make_task(blank),
        lambda: make_task("image/digits-linf", victim=blank),
        lambda: make_task("image/digits-linf", dataset=blank),
        lambda: make_task("image/digits-linf", surrogate=blank, knowledge="transfer"),
        lambda: make_task("image/digits-linf", defenses=[blank]),
        lambda: attack("image/digits-linf", blank, episodes=1),
    ):
        with pytest.raises(AdvgymError, match=r"empty name|is an empty name"):
            call()


# -- completion ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("advgym att", ["attack"]),
        (
            "advgym attack image/digits-l",
            ["image/digits-l0", "image/digits-l1", "image/digits-l2", "image/digits-linf"],
        ),
        ("advgym attack image/digits-linf --agent pg", ["pgd"]),
        ("advgym attack image/digits-linf --defense jp", ["jpeg"]),
        ("advgym list ag", ["agents"]),
        ("advgym list defenses jac", ["jaccard"]),
        ("advgym list tasks --domain sp", ["speech"]),
        ("advgym show text/synth-h", ["text/synth-headline"]),
        ("advgym train digits-cnn-fl", ["digits-cnn-flow"]),
        ("advgym score gra", ["grand", "graph", "graph-global"]),
        ("advgym board che", ["check"]),
        ("advgym test x --board spe", ["speech"]),
    ],
)
def test_a_shell_completes(words, wanted, monkeypatch, capsys):
    """By the protocol of the script that `--install-completion` writes."""
    from advgym.cli.app import main

    monkeypatch.setenv("_ADVGYM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit) as over:
        main([])
    assert over.value.code == 0
    assert capsys.readouterr().out.split() == wanted


def test_completion_imports_no_torch():
    code = (
        "import os, sys\n"
        "os.environ.update(_ADVGYM_COMPLETE='complete_bash', COMP_WORDS='advgym attack x --agent pg', COMP_CWORD='4')\n"
        "from advgym.cli.app import main\n"
        "try:\n    main([])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'numpy.random' not in sys.argv\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["pgd"]


def test_the_script_of_a_shell(monkeypatch, capsys):
    from advgym.cli.app import main

    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    with pytest.raises(SystemExit) as over:
        main(["--show-completion", "bash"])
    assert over.value.code == 0 and "complete_bash" in capsys.readouterr().out


# -- JSON ------------------------------------------------------------------------------------------------------------
def test_json_is_one_document(advgym, tmp_path):
    """Of the commands that take no server and no long play; others have it in their own tests."""
    out = tmp_path / "r.json"
    base = ("attack", "image/digits-linf", "--agent", "fgsm", "--episodes", 4, "--seed", 3, "--show", 2)
    found = json.loads(advgym(*base, "--out", out, "--json").out)
    assert found == json.loads(out.read_text()) and found["seed"] == 3
    assert json.loads(advgym("verify", out, "--json").out)["true"] is True
    spoilt = tmp_path / "s.json"
    spoilt.write_text(json.dumps({**found, "success_rate": 0.987}))
    answer = advgym("verify", spoilt, "--json")
    assert answer.code == 1 and json.loads(answer.out)["wrong"]
    assert json.loads(advgym("train", "digits-cnn", "--json").out)["card"]["name"] == "digits-cnn"
    assert json.loads(advgym("show", "image/digits-linf", "--json").out)["what"] == "task"
    assert json.loads(advgym("board", "check", "image", "--json").out) == [{"board": "image", "problems": []}]
    assert json.loads(advgym("list", "agents", "pgd", "--json").out)[0]["papers"] == ["Madry et al. 2018"]
    made = json.loads(advgym("token", "new", "--role", "organiser", "--data", tmp_path / "d", "--json").out)
    assert made["token"] and made["role"] == "organiser"
    assert len(json.loads(advgym("token", "list", "--data", tmp_path / "d", "--json").out)) == 1
