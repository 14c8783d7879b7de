"""Budgets of additive waveforms: what each norm means, and which are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from advgym.envs.speech.data import digits as data
from advgym.errors import AdvgymError, DataError, unknown
from advgym.lib.given import check_radius

NORMS = ("linf", "l2", "snr", "dbx", "mask")
BALL = {"linf": "linf", "l2": "l2", "snr": "l2", "dbx": "linf", "mask": "l2"}  # the ball that a norm is one of
MOST_DB = 60.0  # of mask excess: a perturbation as loud as the loudest speech


def radius(x: Tensor, constraint: Mapping[str, Any]) -> Tensor | float:
    """The radius of each clip (B, samples): of "snr" and "dbx" it follows from the clip, float64 (B,).

    "linf" and "l2": eps in units of full scale; "snr": the L2 ball `snr` dB below the clip's power; "dbx": the Linf ball
    whose peak is `dbx` dB of the clip's own (below 0: quieter); "mask": eps in dB of mean mask excess.
    """
    if constraint["norm"] == "snr":
        return x.double().square().sum(1).sqrt() * 10.0 ** (-float(constraint["snr"]) / 20.0)
    if constraint["norm"] == "dbx":
        return x.double().abs().amax(1) * 10.0 ** (float(constraint["dbx"]) / 20.0)
    return float(constraint["eps"])


def check_constraint(name: str, constraint: Mapping[str, Any]) -> None:
    """Refuse a norm that does not exist and a ball that holds nothing."""
    norm = constraint["norm"]
    if norm not in NORMS:
        raise unknown(f"norm of {name}", norm, NORMS)
    try:
        eps, snr, dbx = (float(constraint[k]) for k in ("eps", "snr", "dbx"))
    except (TypeError, ValueError):
        told = ", ".join(f"{constraint[k]!r}" for k in ("eps", "snr", "dbx"))
        raise AdvgymError(f"eps, snr and dbx are numbers, not {told}") from None
    if norm == "mask":
        check_radius("eps", eps, most=MOST_DB, hint=" With norm='mask' it is dB of mean excess over the mask.")
    elif not (math.isfinite(eps) and eps * data.LEVELS >= 1):
        raise AdvgymError(
            f"eps={eps:g} is less than one 16-bit step; want at least {1 / data.LEVELS:.2g} (full scale is 1)"
        )
    if norm == "linf":
        meant = f" Full scale is 1: {eps:g} steps of 16 bits are eps={eps / data.LEVELS:.3g}." if eps > 1 else ""
        check_radius("eps", eps, most=1.0, hint=meant)
    if not math.isfinite(snr) or snr < 0:
        raise AdvgymError(f"snr={snr} is a number of dB from 0 on: below 0 the noise is louder than the clip")
    if not math.isfinite(dbx) or dbx > 0:
        raise AdvgymError(f"dbx={dbx} is a number of dB up to 0: above it the perturbation's peak is the clip's")


def check_clips(clips: data.Clips, samples: int, constraint: Mapping[str, Any], what: str) -> None:
    """Refuse a ball that covers the box, and clips in whose ball nothing but the clip itself is."""
    norm, step = constraint["norm"], 1 / data.LEVELS
    if norm == "l2":
        check_radius("eps", float(constraint["eps"]), most=math.sqrt(samples))
    if norm not in ("snr", "dbx"):
        return
    wave = clips.wave.double() / data.LEVELS
    room = torch.as_tensor(radius(wave, constraint))
    short = (room < step).nonzero().flatten().tolist()
    if short:
        which = ", ".join(map(str, short[:8])) + (" ..." if len(short) > 8 else "")
        silent = "silent" if not bool(wave[short[0]].any()) else "too soft"
        option = f"{norm}={constraint[norm]:g}"
        raise DataError(
            f"{what} {which}: {silent} for {option}, whose noise would be less than one 16-bit step. "
            f"Leave such clips out, take a {'smaller snr' if norm == 'snr' else 'larger dbx'}=, or norm='linf' with eps="
        )
