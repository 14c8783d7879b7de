"""Result files: statistics, typed loading, atomic writing."""

import json
import math

import pytest
import toy

from advgym import DataError, attack
from advgym.judge import results
from advgym.lib import files, rates


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return attack(toy.task("field", queries=10), "random-search", episodes=12, lanes=5)


@pytest.mark.parametrize(("wins", "n"), [(0, 1), (0, 10), (3, 10), (10, 10), (1, 1), (250, 1000), (999, 1000)])
def test_wilson_solves_its_own_equation(wins, n):
    """The bounds are the p0 with |p - p0| = z * sqrt(p0 (1 - p0) / n)."""
    z = 1.959964
    low, high = rates.wilson(wins, n)
    assert 0 <= low <= wins / n <= high + 1e-12 <= 1 + 1e-12
    for bound in (low, high):
        if 0 < bound < 1:
            assert abs(wins / n - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-7)


def test_wilson_against_scipy():
    from scipy.stats import binomtest

    for wins, n in ((0, 7), (3, 10), (50, 60), (60, 60)):
        ci = binomtest(wins, n).proportion_ci(0.95, method="wilson")
        assert rates.wilson(wins, n) == pytest.approx((ci.low, ci.high), abs=1e-6)
    assert rates.wilson(0, 0) == (0.0, 1.0)


def test_median_and_mean():
    assert rates.median([]) == rates.mean([]) == 0
    assert rates.median([3, 1, 2]) == 2 and rates.median([4, 1, 2, 3]) == 2.5


def test_the_curve_counts_successes_within_q(result):
    rows = result.samples
    for q, share in result.curve:
        assert share == pytest.approx(sum(r.success and r.first_success <= q for r in rows) / len(rows))
    grid = [q for q, _ in result.curve]
    assert grid == sorted(grid) and grid[-1] == 10
    assert result.curve[-1][1] == pytest.approx(result.success_rate)


def test_the_summary_follows_from_the_rows(result):
    rows = result.samples
    wins = sum(r.success for r in rows)
    assert result.attacked == len(rows) <= result.episodes == 12
    assert result.success_rate == pytest.approx(wins / len(rows))
    assert result.success_ci == rates.wilson(wins, len(rows))
    assert result.robust_accuracy == pytest.approx((len(rows) - wins) / 12)
    assert result.clean_accuracy == pytest.approx(0.9)
    assert result.queries_mean == pytest.approx(sum(r.queries for r in rows) / len(rows))
    for r in rows:
        assert r.queries_distinct <= r.queries <= 10 and r.id % 10
        assert (r.first_success >= 1) == r.success and (not r.success or r.after != r.before)
        assert r.label == r.before
    assert {"torch", "gymnasium", "numpy", "python", "advgym"} <= set(result.versions)


def test_summary_keys_are_never_null(result, tmp_path):
    results.save(result, tmp_path / "r.json")
    table = json.loads((tmp_path / "r.json").read_text())
    keys = """task agent defense seed device versions episodes attacked clean_accuracy robust_accuracy
        success_rate success_ci invalid_rate queries_mean queries_median gradients_mean distance_median seconds
        flags"""
    assert all(table[k] is not None for k in keys.split()) and table["defense"] == "none"
    assert results.load(tmp_path / "r.json") == result


def test_loading_names_the_file_and_the_key(result, tmp_path):
    path = tmp_path / "r.json"
    results.save(result, path)
    table = json.loads(path.read_text())
    cases = [
        (lambda t: t.pop("success_rate"), "success_rate"),
        (lambda t: t.update(success_rate="high"), "success_rate"),
        (lambda t: t["samples"][0].pop("objective"), r"objective.*samples|samples.*objective"),
        (lambda t: t["samples"][0].update(id="one"), "id"),
        (lambda t: t.update(format="advgym-result/9"), "advgym-result/9"),
        (lambda t: t.update(flags=None), "flags"),
    ]
    for change, word in cases:
        broken = json.loads(json.dumps(table))
        change(broken)
        path.write_text(json.dumps(broken))
        with pytest.raises(DataError, match=f"(?s)r.json.*({word})"):
            results.load(path)
    for text in ("", "{", "[]", "null", '{"format": 1}', "\x00"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"r\.json"):
            results.load(path)
    with pytest.raises(DataError, match=r"missing\.json"):
        results.load(tmp_path / "missing.json")


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "r.json"
    files.write_atomic(path, b"old")
    from pathlib import Path

    def torn(self, data):
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", torn)
    with pytest.raises(DataError, match="No space left"):
        files.write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
