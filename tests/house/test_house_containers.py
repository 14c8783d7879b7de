"""Dockerfile and compose.yaml: what they name exists; built and asked where there is a docker daemon."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def steps():
    """(instruction, rest) of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def check_command(words):
    """A command of ours with options that it has."""
    from typer.main import get_command

    from advgym.cli.app import app

    command = get_command(app).commands[words[0]]
    known = {name for p in command.params for name in p.opts}
    assert {w for w in words if w.startswith("--")} <= known
    with command.make_context(words[0], words[1:], resilient_parsing=False) as ctx:
        return ctx.params


def test_the_dockerfile_names_what_exists():
    found = steps()
    assert found[0][0] == "ARG" and found[0][1].startswith("BASE=") and found[1] == ("FROM", "${BASE}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    args = dict(rest.split("=", 1) for what, rest in found if what == "ARG")
    assert set(args["EXTRAS"].split(",")) <= set(project["optional-dependencies"])
    copied = [name for what, rest in found if what == "COPY" for name in rest.split()[:-1]]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == set(copied) and all((ROOT / name).exists() for name in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
    assert set(packages) <= set(copied)
    assert ("ENTRYPOINT", '["advgym"]') in found and "advgym" in project["scripts"]
    (words,) = [yaml.safe_load(rest) for what, rest in found if what == "CMD"]
    assert str(check_command(words)["data"]) == dict(found)["VOLUME"]


def test_compose_names_what_exists():
    import sqlalchemy as sa

    serve, db = COMPOSE["services"]["serve"], COMPOSE["services"]["db"]
    given = check_command(serve["command"])
    url = sa.make_url(given["db"])
    assert url.get_backend_name() == "postgresql" and url.host in COMPOSE["services"] and url.password is None
    assert {"PGPASSWORD"} == set(serve["environment"]) and url.username == db["environment"]["POSTGRES_USER"]
    assert url.database == db["environment"]["POSTGRES_DB"]
    assert serve["ports"] == [f"127.0.0.1:{given['port']}:{given['port']}"] and f"EXPOSE {given['port']}" in DOCKERFILE
    named = {v.split(":")[0]: v.split(":")[1] for v in serve["volumes"]}
    assert set(named) <= set(COMPOSE["volumes"]) and str(given["data"]) in named.values()
    assert {f"ARG {name}=" for name in serve["build"]["args"]} <= set(re.findall(r"ARG \w+=", DOCKERFILE))


def test_it_builds_and_serves():
    """Set ADVGYM_DOCKER_BASE to an image with Python where docker can fetch it and the packages."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("docker has no daemon here")
    base = os.environ.get("ADVGYM_DOCKER_BASE")
    if not base:
        pytest.skip("docker builds are asked for by ADVGYM_DOCKER_BASE")
    build = [
        "docker",
        "build",
        "--build-arg",
        f"BASE={base}",
        "--build-arg",
        "EXTRAS=server",
        "--tag",
        "advgym-test",
        ".",
    ]
    subprocess.run(build, cwd=ROOT, check=True)
    said = subprocess.run(["docker", "run", "--rm", "advgym-test", "list", "boards"], capture_output=True, text=True)
    assert said.returncode == 0 and "image" in said.stdout
