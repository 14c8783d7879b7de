"""Every Python block of docs/rl.md runs by itself, as a reader would paste it."""

import re
from pathlib import Path

import pytest

pytest.importorskip("sb3_contrib")
pytest.importorskip("torchrl")

PAGE = Path(__file__).parents[2] / "docs" / "rl.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def test_the_page_has_its_blocks():
    assert len(BLOCKS) == 6
    for client in ("gym.make_vec", "MaskablePPO", "GymEnv"):
        assert any(client in code for code in BLOCKS)


def test_links_exist():
    for target in re.findall(r"`(benchmarks/\S+?\.py)`", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parents[1] / target).is_file()


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(code):
    exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
