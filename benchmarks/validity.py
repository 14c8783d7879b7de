"""Validity: how well the score tells kept meanings from changed ones on people's judgements, cross-validated.

Reads $ADVGYM_DATA/text/validity/pairs-dev.csv (GateNLP, CLEF 2024 InCrediblAE manual evaluation, CC0). Cross-validation
is repeated, stratified and grouped by the evidence that pairs share. With --write, envs/text/validity/calibration.json
is made again from all pairs.

Those pairs hold hardly a synonym. What a substitute from a table is worth is fitted on SWORDS (Lee et al. 2021, CC BY
3.0), --swords FOLDER with swords-v1.1_dev.json.gz and swords-v1.1_test.json.gz of github.com/p-lambda/swords: on dev,
for the share of substitutes that one of ten judges or more accepts; measured on test. Without it that part of the table
stays as it is.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import time
import warnings
from pathlib import Path

import numpy as np
from _common import table
from scipy.optimize import minimize
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from advgym.envs.text.metrics import char_edit
from advgym.envs.text.validity import Relations, default_relations, score
from advgym.envs.text.validity.features import NAMES, features
from advgym.envs.text.validity.scoring import TABLE
from advgym.weights import data_dir

FOLDS = 5
OWN = 5  # figures that these pairs calibrate; the others are those of substitutes
PRECISION = 0.95  # of the pairs that are called kept, held out
EDGES = (0.0, 0.05, 0.1, 0.3, 0.7, 0.9, 1.0)


def read_pairs() -> tuple[list[str], list[str], np.ndarray]:
    """Originals, adversarial texts, and whether the annotators agreed that the meaning is kept."""
    root = data_dir()
    if root is None:
        raise SystemExit("set ADVGYM_DATA: the judgements are read from $ADVGYM_DATA/text/validity/pairs-dev.csv")
    with (root / "text" / "validity" / "pairs-dev.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = np.array([float(row["label"]) == 0 for row in rows], dtype=np.int64)
    return [r["original"] for r in rows], [r["adversarial"] for r in rows], kept


def logistic(strength: float):
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))


def boosted():
    return GradientBoostingClassifier(n_estimators=60, max_depth=2, learning_rate=0.1, subsample=0.7, random_state=0)


def cross_validate(make, x, kept, groups, repeats: int) -> np.ndarray:
    """Held-out probabilities (repeats, n)."""
    out = np.zeros((repeats, len(kept)))
    for r in range(repeats):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=r)
        for train, test in folds.split(x, kept, groups):
            out[r, test] = make().fit(x[train], kept[train]).predict_proba(x[test])[:, 1]
    return out


def quality(held: np.ndarray, kept: np.ndarray, plain: np.ndarray) -> dict[str, float]:
    """Means and spreads over the repeats."""
    every = [roc_auc_score(kept, p) for p in held]
    some = [roc_auc_score(kept[plain], p[plain]) for p in held]
    brier = [brier_score_loss(kept, p) for p in held]
    found = {"auc": np.mean(every), "auc_std": np.std(every), "auc_plain": np.mean(some),
             "auc_plain_std": np.std(some), "brier": np.mean(brier)}  # fmt: skip
    return {k: round(float(v), 4) for k, v in found.items()}


def bootstrap(held: np.ndarray, kept: np.ndarray, plain: np.ndarray, draws: int = 2000) -> dict[str, list[float]]:
    """95 % intervals of the AUC of the mean held-out probability, over pairs drawn again."""
    rng, p, out = np.random.default_rng(0), held.mean(0), {}
    for name, rows in (("auc_ci", np.arange(len(kept))), ("auc_plain_ci", np.flatnonzero(plain))):
        found = []
        for _ in range(draws):
            at = rng.choice(rows, len(rows))
            if 0 < kept[at].sum() < len(at):
                found.append(roc_auc_score(kept[at], p[at]))
        out[name] = [round(float(v), 4) for v in np.quantile(found, (0.025, 0.975))]
    return out


def bins(held: np.ndarray, kept: np.ndarray) -> list[dict[str, float]]:
    """Mean probability and share kept, in bins of the held-out probability."""
    p, out = held.mean(0), []
    for low, high in itertools.pairwise(EDGES):
        here = (p >= low) & (p < high) if high < 1 else p >= low
        if here.any():
            means = {"probability": round(float(p[here].mean()), 3), "kept": round(float(kept[here].mean()), 3)}
            out.append({"low": low, "high": high, "pairs": int(here.sum()), **means})
    return out


def fitted(x: np.ndarray, kept: np.ndarray, strength: float) -> tuple[float, list[float], dict[str, list[float]]]:
    """Intercept and coefficients on the figures as they are, and the means and scales they were standardised with."""
    model = logistic(strength).fit(x, kept)
    scaler, line = model[0], model[1]
    weights = line.coef_[0] / scaler.scale_
    intercept = float(line.intercept_[0] - weights @ scaler.mean_)
    scales = {"means": scaler.mean_.round(6).tolist(), "scales": scaler.scale_.round(6).tolist()}
    return round(intercept, 6), weights.round(6).tolist(), scales


def least(held: np.ndarray, kept: np.ndarray) -> dict[str, float]:
    """The least score, in hundredths, from which on the precision is at least PRECISION; of the mean held-out score."""
    p = held.mean(0)
    for edge in range(5, 100):
        called = p >= edge / 100
        if called.any() and kept[called].mean() >= PRECISION:
            recall = float(kept[called].sum() / kept.sum())
            return {"score": edge / 100, "asked": PRECISION, "precision": round(float(kept[called].mean()), 4),
                    "recall": round(recall, 4), "pairs": int(called.sum())}  # fmt: skip
    raise SystemExit(f"no score has a precision of {PRECISION}")


def read_swords(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Contexts, the same with a substitute, and the share of judges that accept it."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = json.load(file)
    old, new, share = [], [], []
    for key, entry in found["substitutes"].items():
        target = found["targets"][entry["target_id"]]
        text, at = found["contexts"][target["context_id"]]["context"], target["offset"]
        old.append(text)
        new.append(text[:at] + entry["substitute"] + text[at + len(target["target"]) :])
        said = found["substitute_labels"][key]
        share.append(sum(s.startswith("TRUE") for s in said) / len(said))
    return old, new, np.array(share)


def substitutes(folder: Path, intercept: float, weights: list[float], edge: float, known: Relations) -> dict:
    """Coefficients of `fitted` and `listed` on SWORDS dev, the others held, and what they give on test."""
    line = np.array(weights)

    def parts(split: str):
        old, new, share = read_swords(folder / f"swords-v1.1_{split}.json.gz")
        x = features(old, new, known)
        return x, intercept + x[:, :OWN] @ line, (share > 0).astype(float)

    x, offset, some = parts("dev")
    rows = (x[:, OWN:].sum(1) > 0) & (x[:, 0] == 0)
    x, offset, some = x[rows, OWN:], offset[rows], some[rows]

    def loss(found: np.ndarray) -> float:
        z = offset + x @ found
        return float((np.logaddexp(0, z) - some * z).mean())

    found = minimize(loss, np.full(2, -3.0)).x
    report = {}
    for split in ("dev", "test"):
        x, offset, some = parts(split)
        p = 1 / (1 + np.exp(-(offset + x[:, OWN:] @ found)))
        called, table = p >= edge, x[:, OWN:].sum(1) > 0
        of_tables = round(roc_auc_score(some[table], p[table]), 4)
        report[split] = {
            "substitutes": len(p), "called": int(called.sum()), "nobody": round(1 - some[called].mean(), 4),
            "auc": round(roc_auc_score(some, p), 4), "auc_listed": of_tables,
        }  # fmt: skip
    return {"coefficients": found.round(6).tolist(), "accepted": "by at least one of ten judges", **report,
            "data": "SWORDS v1.1 (Lee et al. 2021, CC BY 3.0 US): fitted on dev"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--strength", type=float, default=1.0, help="inverse regularisation")
    parser.add_argument("--swords", type=Path, help="a folder with SWORDS' files")
    parser.add_argument("--write", action="store_true", help="write the calibration table")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    originals, adversarials, kept = read_pairs()
    groups = [text.split(" ~ ")[0] for text in originals]
    added = [set(b) - set(a) for a, b in zip(originals, adversarials, strict=True)]
    plain = np.array([all(c.isascii() for c in chars) for chars in added])
    known = default_relations()
    every, bare = (features(originals, adversarials, k) for k in (known, Relations()))
    # A pair with a substitute from a table is no evidence for these figures: it counts as one with a hard change less.
    x, bare = every[:, :OWN], bare[:, :OWN]
    base = np.array([[1 - char_edit(a, b)] for a, b in zip(originals, adversarials, strict=True)])
    held = cross_validate(lambda: logistic(args.strength), x, kept, groups, args.repeats)
    runs = {
        "this score": held,
        "without any table of words": cross_validate(lambda: logistic(args.strength), bare, kept, groups, args.repeats),
        "gradient boosting, same figures": cross_validate(boosted, x, kept, groups, args.repeats),
        "BODEGA's character score": base.T,
    }
    rows = []
    for name, p in runs.items():
        q = quality(p, kept, plain)
        rows.append([name, f"{q['auc']:.3f} ± {q['auc_std']:.3f}", f"{q['auc_plain']:.3f} ± {q['auc_plain_std']:.3f}",
                     "" if name.startswith("BODEGA") else f"{q['brier']:.3f}"])  # fmt: skip
    print(
        f"{len(kept)} pairs, {len(set(groups))} groups, {kept.mean():.0%} kept; {plain.sum()} without added non-ASCII"
    )
    table("validity", ["score", "AUC, all", "AUC, no added non-ASCII", "Brier"], rows)
    for row in bins(held, kept):
        print(f"held-out probability {row['low']:.2f}-{row['high']:.2f}: {row['pairs']} pairs, "
              f"mean {row['probability']:.3f}, kept {row['kept']:.3f}")  # fmt: skip
    intervals, found_bar = bootstrap(held, kept, plain), least(held, kept)
    print("called kept from {score:.2f} on: precision {precision:.3f}, recall {recall:.3f}".format(**found_bar))
    print(f"95 % over pairs: all {intervals['auc_ci']}, no added non-ASCII {intervals['auc_plain_ci']}")
    intercept, weights, scales = fitted(x, kept, args.strength)
    scales = {"means": every.mean(0).round(6).tolist(), "scales": every.std(0).round(6).tolist()}
    of = json.loads(TABLE.read_text(encoding="utf-8")).get("substitutes")
    if args.swords is not None:
        of = substitutes(args.swords, intercept, weights, found_bar["score"], known)
    for split in ("dev", "test"):
        print("SWORDS {}: {substitutes} substitutes, AUC {auc:.3f} (from a table {auc_listed:.3f}); {called} called "
              "kept, of which nobody accepts {nobody:.3f}".format(split, **of[split]))  # fmt: skip
    score(originals, adversarials)
    started = time.process_time()
    score(originals, adversarials)
    print(f"{len(kept) / (time.process_time() - started):,.0f} pairs/s")
    if args.write:
        found = {
            "features": list(NAMES), "intercept": intercept, "coefficients": [*weights, *of["coefficients"]], **scales,
            "bar": found_bar, "substitutes": of,
            "pairs": len(kept), "groups": len(set(groups)), "kept": round(float(kept.mean()), 4),
            "regularisation": f"L2, C = {args.strength:g} on standardised figures",
            "cross_validation": {"folds": FOLDS, "repeats": args.repeats, **quality(held, kept, plain), **intervals,
                                 "calibration": bins(held, kept)},
            "baseline": {"name": "BODEGA's character score", **{k: v for k, v in quality(base.T, kept, plain).items()
                                                                if k in ("auc", "auc_plain")}},
            "sources": list(known.sources),
            "data": "GateNLP, CLEF 2024 InCrediblAE manual evaluation (CC0), pairs-dev.csv",
            "command": "python benchmarks/validity.py --swords FOLDER --write",
        }  # fmt: skip
        TABLE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {TABLE.name}")


if __name__ == "__main__":
    main()
