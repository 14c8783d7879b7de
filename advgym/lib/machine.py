"""What the numbers were made on: versions of packages, the device, whether somebody watches."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("advgym", "torch", "gymnasium", "numpy", "transformers", "torch_geometric", "torchaudio", "scikit-learn")


def versions() -> dict[str, str]:
    """Of Python and of the packages that make the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: Any) -> str:
    """Name of the device: "cpu", or the accelerator's own."""
    kind = str(device)
    if kind.startswith("cuda"):
        import torch

        return f"{kind} ({torch.cuda.get_device_name(kind)})"
    return kind


def interactive() -> bool:
    """Whether progress can be drawn."""
    return sys.stderr.isatty()
