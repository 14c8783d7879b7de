"""Budgets of additive waveforms: what each norm means, and which are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from advgym.envs.speech.data import digits as data
from advgym.errors import AdvgymError, DataError
from advgym.lib.given import check_radius
from advgym.lib.options import Options

BALL = {"linf": "linf", "l2": "l2", "snr": "l2", "dbx": "linf", "mask": "l2"}  # the ball that a norm is one of
MOST_DB = 60.0  # of mask excess: a perturbation as loud as the loudest speech
EPS = "of full scale 1, at least one 16-bit step, or with norm='mask' dB of mean excess over the mask"
SNR = "dB of the clip to what is added, norm='snr'; below 0 that is louder than the clip"
Norm = Literal["linf", "l2", "snr", "dbx", "mask"]
Eps = Annotated[float, Meta(description=EPS)]
Snr = Annotated[float, Meta(ge=0, description=SNR)]
Dbx = Annotated[float, Meta(le=0, description="dB of the perturbation's peak to the clip's, norm='dbx'")]
VICTIMS = "victim"  # of the option `rate`: the victim's own


class Sounds(Options, kw_only=True):
    """What every task of recordings takes."""

    rate: Annotated[Any, Meta(description='samples per second of own recordings; "victim": as the victim hears')] = (
        VICTIMS
    )


class Budget(Sounds):
    """Of a waveform that is added; see `radius`."""

    norm: Norm
    eps: Eps
    snr: Snr
    dbx: Dbx


def radius(x: Tensor, constraint: Mapping[str, Any]) -> Tensor | float:
    """The radius of each clip (B, samples): of "snr" and "dbx" it follows from the clip, float64 (B,).

    "linf" and "l2": eps in units of full scale; "snr": the L2 ball `snr` dB below the clip's power; "dbx": the Linf
    ball whose peak is `dbx` dB of the clip's own (below 0: quieter); "mask": eps in dB of mean mask excess.
    """
    if constraint["norm"] == "snr":
        return x.double().square().sum(1).sqrt() * 10.0 ** (-float(constraint["snr"]) / 20.0)
    if constraint["norm"] == "dbx":
        return x.double().abs().amax(1) * 10.0 ** (float(constraint["dbx"]) / 20.0)
    return float(constraint["eps"])


def check_constraint(constraint: Mapping[str, Any]) -> None:
    """Refuse a ball that holds nothing, or everything."""
    norm, eps = constraint["norm"], constraint["eps"]
    if norm == "mask":
        check_radius("eps", eps, most=MOST_DB, hint=" With norm='mask' it is dB of mean excess over the mask.")
    elif eps * data.LEVELS < 1:
        raise AdvgymError(
            f"eps={eps:g} is less than one 16-bit step; want at least {1 / data.LEVELS:.2g} (full scale is 1)"
        )
    if norm == "linf":
        meant = f" Full scale is 1: {eps:g} steps of 16 bits are eps={eps / data.LEVELS:.3g}." if eps > 1 else ""
        check_radius("eps", eps, most=1.0, hint=meant)


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
            f"Leave such clips out, take a {'smaller snr' if norm == 'snr' else 'larger dbx'}=, or norm='linf'"
        )
