"""The columns of the speech tasks: how loud, how audible and how intelligible a perturbed clip is, and what was read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advgym.core.columns import Columns, Said
from advgym.core.goals import BundleGoal, Goal
from advgym.envs.speech.constraints import masking
from advgym.envs.speech.measures import errors, levels
from advgym.envs.speech.measures.stoi import stoi

if TYPE_CHECKING:
    from advgym.core.batch import Batch

MOST = 120.0  # dB that stand for a ratio without end: no change, or a silent clip


def audible(batch: Batch, form: Tensor, *, rate: int) -> dict[str, list[float]]:
    """What is measured of the pair of clips; of a bundle, the mean over its members.

    `snr`, `dbx` and `segsnr` in dB (`levels`); 120 and -120 stand for ratios without end. `mask_excess` in dB
    (`masking.excess_db`). `stoi_part` is the intelligibility of a clip that is long enough for one and `stoi_clips`
    how many are: their ratio `stoi` is the mean over those.
    """
    found: Any = batch
    clean, heard, length = found.pairs(form)
    change = heard - clean
    masks = getattr(batch, "threshold", None)
    threshold = masking.threshold_db(clean, rate) if masks is None else masks
    clear = stoi(clean, heard, length, rate, short=torch.nan)
    long = torch.isfinite(clear)
    values = {
        "snr": _finite(levels.snr_db(clean, change), 1),
        "dbx": _finite(levels.peak_db(clean, change), -1),
        "segsnr": levels.segmental_snr_db(clean, change, length, rate),
        "mask_excess": masking.excess_db(change, threshold, length, rate),
        "stoi_part": torch.where(long, clear, 0.0),
        "stoi_clips": long.float(),
    }
    return {name: v.view(len(form), -1).double().mean(1).tolist() for name, v in values.items()}


def _finite(db: Tensor, none: int) -> Tensor:
    """Ratios in dB, at most 120 either way; of silence to silence, what stands for no change."""
    return torch.nan_to_num(db, nan=none * MOST, posinf=MOST, neginf=-MOST).clamp(-MOST, MOST)


def read(batch: Batch, said: Said, *, space: int) -> dict[str, list[float]]:
    """Word and character edits of the final transcript, and how many words and characters there were to get wrong.

    Against the truth, against the target where there is one (`target_...`), and of the clean transcript against the
    truth (`clean_word_edits`); sums over the members of a bundle.
    """
    wide = said.after.shape[-1]
    n = len(said.after)
    after, before, truth = (t.reshape(-1, wide) for t in (said.after, said.before, said.label))
    edits, words = errors.word_errors(after, truth, space)
    found = {
        "word_edits": edits, "words": words, "clean_word_edits": errors.word_errors(before, truth, space)[0],
        "char_edits": errors.edit_distance(after, truth), "chars": errors.lengths(truth),
    }  # fmt: skip
    if said.target is not None:
        target = said.target.repeat_interleave(len(after) // n, 0)  # one for all members
        edits, words = errors.word_errors(after, target, space)
        found |= {
            "target_word_edits": edits, "target_words": words,
            "target_char_edits": errors.edit_distance(after, target), "target_chars": errors.lengths(target),
        }  # fmt: skip
    return {name: v.view(n, -1).sum(1).double().tolist() for name, v in found.items()}


RATES = {
    "wer": ("word_edits", "words"), "cer": ("char_edits", "chars"), "clean_wer": ("clean_word_edits", "words"),
    "target_wer": ("target_word_edits", "target_words"), "target_cer": ("target_char_edits", "target_chars"),
}  # fmt: skip
"""Micro-averages: all edits over all words (or characters) of the reference, the truth or the target."""


def columns(goal: Goal, rate: int) -> Columns:
    """What a speech task measures of every final perturbation, and of its transcript where there is one."""
    inner = goal.inner if isinstance(goal, BundleGoal) else goal
    space = getattr(inner, "space", None)
    ratios = {"stoi": ("stoi_part", "stoi_clips"), **({} if space is None else RATES)}
    answers = None if space is None else partial(read, space=int(space))
    return Columns(partial(audible, rate=rate), answers=answers, ratios=ratios)
