"""Small image classifiers: convolutional and fully connected."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Cnn(nn.Module):
    """3x3 convolutions, each with ReLU and 2x2 max pooling, then a linear layer: x (n, C, H, W) -> (n, classes).

    Strided: 4x4 convolutions in steps of two pixels in place of 3x3 and pooling, a third of the cost.

    Args:
        shape: (C, H, W) of the images; H and W shrink by half (rounded down) at each convolution.
        widths: channels of each convolution.
        hidden: width of a ReLU layer before the last one; 0 for none.
        strided: steps in place of pooling.
    """

    def __init__(
        self, shape: Sequence[int], classes: int, widths: Sequence[int], hidden: int = 0, strided: bool = False
    ) -> None:
        super().__init__()
        c, h, w = shape
        parts: list[nn.Module] = []
        for width in widths:
            if strided:
                parts += [nn.Conv2d(c, width, 4, 2, 1), nn.ReLU()]
            else:  # pooling before ReLU gives the same numbers on a quarter of the values
                parts += [nn.Conv2d(c, width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
            c, h, w = width, h // 2, w // 2
        parts.append(nn.Flatten())
        size = c * h * w
        if hidden:
            parts += [nn.Linear(size, hidden), nn.ReLU()]
            size = hidden
        self.net = nn.Sequential(*parts, nn.Linear(size, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Mlp(nn.Module):
    """Fully connected ReLU layers of the given widths on the flattened image: (n, C, H, W) -> (n, classes)."""

    def __init__(self, shape: Sequence[int], classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        c, h, w = shape
        parts: list[nn.Module] = [nn.Flatten()]
        size = c * h * w
        for width in widths:
            parts += [nn.Linear(size, width), nn.ReLU()]
            size = width
        self.net = nn.Sequential(*parts, nn.Linear(size, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
