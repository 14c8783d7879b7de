"""Image classifiers by name or folder: of `transformers` with the processor's own preparation, and of `timm`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.errors import DataError
from advgym.lib.checkpoints import drawn_weights
from advgym.lib.extras import need
from advgym.lib.hub import settle

MODES = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # of PIL, as processors name them
_SAFE = "weights are read from safetensors alone, for a .bin file is a pickle, which can run code"


class Prepared(nn.Module):
    """A model behind what its processor does to an image, differentiable: x (n, C, H, W) in [0, 1] -> scores.

    Args:
        resize: (H, W), or one number for the shorter side; None for images as they are.
        crop: (H, W) of the middle, None for all.
        mode: of the resizing; antialiased, as PIL does.
        scale: what values in [0, 255] are multiplied by, before the mean is taken off and divided by the deviation.
        channels: of the model; grey images are repeated where it reads colours.
    """

    def __init__(
        self, model: nn.Module, *, resize: tuple[int, int] | int | None = None, crop: tuple[int, int] | None = None,
        mode: str = "bilinear", scale: float = 1 / 255, mean: list[float] | None = None,
        std: list[float] | None = None, channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.resize, self.crop, self.mode, self.channels = model, resize, crop, mode, channels
        self.scale = scale * 255
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean or [0.0]).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std or [1.0]).view(-1, 1, 1), persistent=False)

    def prepare(self, x: Tensor) -> Tensor:
        """What the model is given."""
        if x.shape[1] == 1 and self.channels == 3:
            x = x.expand(-1, 3, -1, -1)
        height, width = x.shape[-2:]
        if isinstance(self.resize, int):
            short = min(height, width)
            size = (round(height * self.resize / short), round(width * self.resize / short))
        else:
            size = self.resize or (height, width)
        if size != (height, width):
            smooth = {"antialias": True, "align_corners": False} if self.mode != "nearest" else {}
            x = F.interpolate(x, size, mode=self.mode, **smooth).clamp(0, 1)  # type: ignore[arg-type]
        if self.crop is not None:
            top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], self.crop, strict=True))
            if top < 0 or left < 0:
                x = F.pad(x, (max(-left, 0), max(-left, 0), max(-top, 0), max(-top, 0)))
                top, left = max(top, 0), max(left, 0)
            x = x[..., top : top + self.crop[0], left : left + self.crop[1]]
        return (x * self.scale - self.mean) / self.std

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits; `Victim` finds them in whatever it answers."""
        found: Tensor = self.model(self.prepare(x))
        return found


def classifier(name: str, *, source: str) -> Victim:
    """An image classifier of transformers; `transformers:SOURCE` names one in an image task.

    Args:
        source: a hub name (looked up in the offline cache where there is no connection), or a folder that
            save_pretrained wrote, of the model and of its image processor.

    Raises:
        DataError: where it is neither, is no image classifier, or lacks weights.
    """
    model, processor = open_model(source, "AutoModelForImageClassification", "image classifier")
    return wrap(model, processor, source, name=name)


def wrap(model: nn.Module, processor: Mapping[str, Any], source: str, *, name: str = "") -> Victim:
    """An image classifier and the settings of its image processor as a victim."""
    config: Any = model.config
    names = {int(i): str(n) for i, n in config.id2label.items()}
    module = Prepared(model, **preparation(processor), channels=int(getattr(config, "num_channels", 3) or 3)).eval()
    card = {"source": source, "architecture": type(model).__name__, "classes": len(names)}
    named = [names[i] for i in sorted(names)]
    if any(n != f"LABEL_{i}" for i, n in enumerate(named)):
        card["names"] = named
    return Victim(module, name=name or source, access="gradients", card=card)


def open_model(source: str, auto: str, wanted: str) -> tuple[nn.Module, dict[str, Any]]:
    """(model in eval mode, the settings of its image processor) of a hub name or a folder.

    Raises:
        DataError: where it is neither there nor in the cache, or lacks weights of the kind `wanted`.
    """
    settle(source, "model")
    transformers = need("transformers", f"transformers:{source}")
    folder = Path(source).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise DataError(f"{folder} holds no config.json: a model folder is what save_pretrained writes")
    where = str(folder) if folder.is_dir() else source
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(where, use_fast=False).to_dict()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{source!r} has no image processor that can be read (preprocessor_config.json), so how its images are "
            f"prepared is not known: {_first(error)}. Save it beside the model, or wrap the model with its preparation "
            "in a module of your own"
        ) from error
    try:
        model, info = getattr(transformers, auto).from_pretrained(
            where, use_safetensors=True, output_loading_info=True
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"cannot load {source!r} as an {wanted}: {_first(error)} ({_SAFE})") from error
    lost = drawn_weights(model, info)
    if lost:
        raise DataError(
            f"{source} holds no {wanted}: its weights lack {', '.join(lost[:3])}{' ...' if len(lost) > 3 else ''}, "
            "which would be drawn at random"
        )
    return model.float().eval().requires_grad_(False), processor


def preparation(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Prepared` in an image processor's settings."""
    size, crop = settings.get("size"), settings.get("crop_size")
    resize: Any = None
    if settings.get("do_resize") and size:
        resize = int(size["shortest_edge"]) if "shortest_edge" in size else (int(size["height"]), int(size["width"]))
    cut = (int(crop["height"]), int(crop["width"])) if settings.get("do_center_crop") and crop else None
    share = settings.get("crop_pct")
    if share and isinstance(resize, int) and resize < 384:  # ConvNext's: larger by this share, then its middle
        resize, cut = int(resize / share), (resize, resize)
    elif share and isinstance(resize, int):
        resize = (resize, resize)
    normal = bool(settings.get("do_normalize"))
    return {
        "resize": resize, "crop": cut, "mode": MODES.get(int(settings.get("resample", 2)), "bilinear"),
        "scale": float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0,
        "mean": list(settings["image_mean"]) if normal else None,
        "std": list(settings["image_std"]) if normal else None,
    }  # fmt: skip


def timm_classifier(name: str, *, source: str) -> Victim:
    """A pretrained model of timm, `timm:NAME`, behind the preparation of its own configuration.

    Raises:
        AdvgymError: where timm is not installed.
        DataError: where it has no such model, or its weights cannot be had.
    """
    timm = need("timm", f"timm:{source} (transformers:SOURCE takes timm's converted checkpoints without it)")
    try:
        model = timm.create_model(source, pretrained=True)
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(f"timm has no pretrained model {source!r} at hand: {_first(error)}") from error
    config = timm.data.resolve_model_data_config(model)
    size = tuple(config["input_size"][1:])
    whole = tuple(round(s / config.get("crop_pct", 1.0)) for s in size)
    module = Prepared(
        model, resize=whole, crop=size, mode=config.get("interpolation", "bilinear"), mean=list(config["mean"]),
        std=list(config["std"]), channels=int(config["input_size"][0]),
    ).eval()  # fmt: skip
    return Victim(module, name=name, access="gradients", card={"source": source, "classes": model.num_classes})


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
