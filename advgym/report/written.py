"""A result as files that other programs open: every sample clean and perturbed, and an index of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from advgym.core.clean import CHUNK
from advgym.core.goals import SUCCESS, BundleGoal
from advgym.core.own.back import clean_items, items
from advgym.core.task import Task
from advgym.errors import AdvgymError
from advgym.judge.results import Result, Sample
from advgym.lib.files import write_atomic
from advgym.lib.media import png
from advgym.report.examples import forms, words
from advgym.report.frames import csv_bytes
from advgym.report.graphs import FORMATS, write_graph
from advgym.report.shown import plain, task_of

PARTS = ("clean", "adversarial")
LEVELS = 255


def export(r: Result, folder: str | Path, *, task: Task | None = None, only: bool = False, form: str = "npz") -> Path:
    """Write every sample of a result, clean and perturbed, and `index.csv` (sample, label, answers, success, files).

    Texts stand in the index itself; images are PNG beside `images.npz`, which holds the exact floats; recordings are
    wav, sample for sample what was heard; graphs are files that `advgym.load_graph` reads.

    Args:
        folder: new or empty.
        task: of a result from a file that was made with objects of the caller's own.
        only: successes alone.
        form: of graphs: npz, graphml or json.

    Raises:
        AdvgymError: for a folder that holds something, a form that is none, a domain that hands nothing back.
    """
    place = fresh_folder(folder)
    if form not in FORMATS:
        raise AdvgymError(f"graphs are written as {', '.join(FORMATS)}, not {form!r}")
    made = task_of(r, task)
    chosen = [s for s in r.samples if s.success or not only]
    index: list[dict[str, Any]] = []
    images: dict[str, list[Any]] = {"sample": [], "member": [], "label": [], **{part: [] for part in PARTS}}
    for start in range(0, len(chosen), CHUNK):
        part = chosen[start : start + CHUNK]
        batch, held = forms(made, r.split, part)
        for i, s in enumerate(part):
            pairs = list(zip(clean_items(made, batch, i), items(made, batch, i, held[i]), strict=True))
            for member, pair in enumerate(pairs):
                row = _row(made, s, member, len(pairs))
                row |= _files(place, f"{s.id:05d}" + (f"-{member:03d}" if len(pairs) > 1 else ""), pair, form)
                if "image" in pair[0]:
                    row |= _rounded(made, s, pair[1]["image"], len(pairs))
                    for name, value in zip(images, (s.id, member, s.label, *(p["image"] for p in pair)), strict=True):
                        images[name].append(value)
                index.append(row)
            if "audio" in pairs[0][0] and made.save is not None:
                made.save(place / "audio", batch, i, held[i])
    if images["sample"]:
        _write_arrays(place / "images.npz", images)
    columns = list(dict.fromkeys(name for row in index for name in row)) or ["sample"]
    write_atomic(place / "index.csv", csv_bytes(index, columns))
    write_atomic(place / "README.md", _about(r, columns).encode())
    r.save(place / "result.json")
    return place


def fresh_folder(folder: str | Path) -> Path:
    """A folder that holds nothing yet, made where it is missing.

    Raises:
        AdvgymError: naming what is in the way.
    """
    place = Path(folder)
    if place.is_file():
        raise AdvgymError(f"{place} is a file; name a folder")
    if place.is_dir() and any(place.iterdir()):
        raise AdvgymError(f"{place} holds something already: name a folder that is new or empty")
    place.mkdir(parents=True, exist_ok=True)
    return place


def _row(task: Task, s: Sample, member: int, members: int) -> dict[str, Any]:
    """What the index says of a sample, or of one member of a bundle."""

    def of(value: Any) -> Any:
        return value[member] if members > 1 and isinstance(value, list) and len(value) == members else value

    about = {"sample": s.id, **({"member": member} if members > 1 else {})}
    if members > 1:
        told = {"clean_answer": plain(of(s.before)), "answer": plain(of(s.after))}
    else:
        told = {"clean_answer": words(task, s.before), "answer": words(task, s.after)}
    return {
        **about, "label": label_of(task, s.label) if members == 1 else plain(of(s.label)), **told, "success": s.success,
        "valid": s.valid, "queries": s.queries, "distance": s.distance,
    }  # fmt: skip


def label_of(task: Task, label: Any) -> Any:
    """The truth as a number, or in words where it is a sequence; of bundles the members' as JSON."""
    sequence = isinstance(label, list) and not isinstance(task.goal, BundleGoal)
    return words(task, label).strip('"') if sequence else plain(label)


def _files(place: Path, name: str, pair: tuple[dict[str, Any], ...], form: str) -> dict[str, Any]:
    """Write what are files, and say where; strings go into the index."""
    out: dict[str, Any] = {}
    for part, item in zip(PARTS, pair, strict=True):
        if "text" in item:
            out |= {f"{part}{key.removeprefix('text')}": item[key] for key in item}
        elif "image" in item:
            path = place / "images" / f"{name}-{part}.png"
            write_atomic(path, png(pixels_of(item["image"])))
            out[part] = path.relative_to(place).as_posix()
        elif "audio" in item:
            out[part] = f"audio/{name}-{part}.wav"  # which the task writes
            out["rate"] = item["rate"]
        elif "edges" in item:
            path = write_graph(place / "graphs" / f"{name}-{part}{FORMATS[form]}", item)
            out[part] = path.relative_to(place).as_posix()
            out["asked"] = " ".join(map(str, item["asked"].tolist()))
    return out


def pixels_of(image: Any) -> Any:
    """uint8 (H, W, 1, 3 or 4) of float (C, H, W) in [0, 1], rounded; other numbers of channels as their mean."""
    image = image if image.shape[0] in (1, 3, 4) else image.mean(0, keepdims=True)
    return np.ascontiguousarray((image * LEVELS).round().clip(0, LEVELS).astype(np.uint8).transpose(1, 2, 0))


def _rounded(task: Task, s: Sample, image: Any, members: int) -> dict[str, Any]:
    """Whether a PNG holds the image exactly, and where not what the victim says to what it holds."""
    whole = pixels_of(image).transpose(2, 0, 1)
    exact = whole.shape == image.shape and bool(np.abs(whole / LEVELS - image).max() <= 1e-6)
    if exact or members > 1 or task.victim.keyed or whole.shape != image.shape:
        return {"png_exact": exact, "png_answer": "", "png_success": s.success if exact else ""}
    with torch.no_grad():
        scores = task.victim(torch.from_numpy(whole / LEVELS).float().unsqueeze(0))
        before = torch.as_tensor(s.before).unsqueeze(0)
        target = None if s.target is None else task.goal.parse_target(s.target).unsqueeze(0)
        won = bool(task.goal.judge(scores, before, target)[0][0] > SUCCESS)
    return {"png_exact": False, "png_answer": task.goal.describe(task.goal.output(scores)[0]), "png_success": won}


def _write_arrays(path: Path, columns: dict[str, list[Any]]) -> None:
    arrays: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _about(r: Result, columns: list[str]) -> str:
    lines = [
        f"# {r.agent} on {r.task}",
        "",
        f"{r}",
        "",
        f"`index.csv` has a line for each sample that was attacked: {', '.join(f'`{c}`' for c in columns)}.",
        "`success` is the verifier's verdict; `advgym verify result.json` checks it again. "
        "`label` is the truth, `clean_answer` what the victim says to the clean sample.",
    ]
    if "png_exact" in columns:
        lines.append(
            "A PNG rounds to 256 levels. Where that moves a value `png_exact` is False, and `png_answer` and "
            "`png_success` are what the victim says to the rounded image, whose distance may exceed the constraint by "
            "half a level. `images.npz` holds the exact float32 values, `clean` and `adversarial`, (n, C, H, W)."
        )
    if "asked" in columns:
        lines.append(
            "Graphs are read by `advgym.load_graph(path)` as PyG `Data`, or with `kind='networkx'`. `y` has the labels "
            "of the nodes that were asked about, -1 elsewhere."
        )
    if "rate" in columns:
        lines.append("Recordings are 16-bit wav, sample for sample what the victim heard; the difference lies beside.")
    return "\n\n".join(line for line in lines if line) + "\n"
