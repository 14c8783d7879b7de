"""The runtime of submissions: what their code can import inside the sandbox, nothing else is promised."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

# distribution: (import name, what for)
PACKAGES = {
    "advgym": ("advgym", "helpers of agents and defenses; the environment is given"),
    "torch": ("torch", "tensors, on the CPU"),
    "numpy": ("numpy", "arrays"),
    "scipy": ("scipy", "optimisation, statistics"),
    "scikit-learn": ("sklearn", "classical models"),
    "networkx": ("networkx", "graph algorithms"),
    "gymnasium": ("gymnasium", "spaces"),
    "safetensors": ("safetensors", "weight files, the only format for tensors"),
    "msgspec": ("msgspec", "JSON, TOML and typed data"),
    "torchaudio": ("torchaudio", "transforms of waveforms"),
    "torch_geometric": ("torch_geometric", "graph networks"),
    "transformers": ("transformers", "model architectures; no weights, and no network to fetch them"),
    "tokenizers": ("tokenizers", "tokenisers"),
}


def runtime() -> list[dict[str, str]]:
    """One row per package: name, version here ("missing" where it is not installed), import name, what for."""
    rows = [{"name": "python", "version": platform.python_version(), "import": "", "summary": "the standard library"}]
    for name, (module, summary) in PACKAGES.items():
        rows.append({"name": name, "version": _version(name), "import": module, "summary": summary})
    return rows


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
