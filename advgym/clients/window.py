"""A window for `render_mode="human"`: pygame's where it is installed, else one of matplotlib."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Any

from advgym.errors import AdvgymError
from advgym.lib.canvas import Frame

TOOLKITS = ("tkinter", "PyQt6", "PyQt5", "PySide6", "wx", "gi")  # what matplotlib opens windows with


def can_open() -> bool:
    """Whether a window can be opened here: a screen, and pygame or a toolkit of matplotlib. Nothing is imported."""
    screen = sys.platform in ("win32", "darwin") or any(os.environ.get(k) for k in ("DISPLAY", "WAYLAND_DISPLAY"))
    if _there("pygame"):
        return screen or bool(os.environ.get("SDL_VIDEODRIVER"))
    return screen and _there("matplotlib") and any(_there(name) for name in TOOLKITS)


def _there(module: str) -> bool:
    try:
        return module in sys.modules or find_spec(module) is not None
    except ValueError:
        return False


def check_window() -> None:
    """Refuse to show anything where no window can be opened."""
    if not can_open():
        raise AdvgymError(
            'render_mode="human" opens a window, and there is no screen here, or neither pygame nor a toolkit for '
            'matplotlib: pip install pygame, or take render_mode="rgb_array" for frames or "ansi" for text'
        )


class Window:
    """One window that shows frames, made when the first is shown."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._game: Any = None
        self._figure: Any = None

    def show(self, frame: Frame) -> None:
        """Show a frame, uint8 (H, W, 3), and let the window answer the screen."""
        if _there("pygame"):
            self._in_pygame(frame)
        else:
            self._in_matplotlib(frame)

    def _in_pygame(self, frame: Frame) -> None:
        import pygame

        if self._game is None:
            pygame.display.init()
            pygame.display.set_caption(self.title)
            self._game = pygame.display.set_mode((frame.shape[1], frame.shape[0]))
        self._game.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.event.pump()
        pygame.display.flip()

    def _in_matplotlib(self, frame: Frame) -> None:
        from matplotlib import pyplot

        if self._figure is None:
            pyplot.ion()
            self._figure = pyplot.figure(self.title, figsize=(frame.shape[1] / 100, frame.shape[0] / 100), dpi=100)
            self._picture = self._figure.add_axes((0, 0, 1, 1)).imshow(frame)
            self._figure.axes[0].axis("off")
        self._picture.set_data(frame)
        self._figure.canvas.draw_idle()
        pyplot.pause(0.001)

    def close(self) -> None:
        """Close the window, if one was opened."""
        if self._game is not None:
            import pygame

            pygame.display.quit()
        if self._figure is not None:
            from matplotlib import pyplot

            pyplot.close(self._figure)
        self._game = self._figure = None
