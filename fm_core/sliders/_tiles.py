"""Tiles of whole pixels: every pixel of a digit becomes a square block, which looks crisp and compresses well.

A figure laid out by matplotlib would put the blocks' edges between the screen's pixels, and every frame of noise would
weigh several times as much. Here matplotlib draws the words once, and the tiles are pasted into a copy per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DPI", "GREYS", "LEVELS", "Tiles", "coarse"]

DPI = 100
GREYS = 16
"""Grey levels of a digit in a slider; the eye sees no difference, the page is lighter by a third or more."""

LEVELS = 21
"""Colours of a signed velocity, an odd number so that the middle one is white."""


def coarse(values: np.ndarray, limit: float = 1.0, levels: int = GREYS) -> np.ndarray:
    """Values clipped to ``[-limit, limit]`` and rounded to so many levels, the ends among them."""
    step = 2 * limit / (levels - 1)
    return np.rint((np.clip(values, -limit, limit) + limit) / step) * step - limit


@dataclass(frozen=True)
class Tiles:
    """A grid of square tiles with room for words around it; all lengths in pixels of the frame.

    Attributes:
        rows, columns: of the grid.
        side: of a tile.
        gap: between two tiles.
        left, top, right, bottom: margins.
    """

    rows: int
    columns: int
    side: int
    gap: int = 8
    left: int = 8
    top: int = 8
    right: int = 8
    bottom: int = 8

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frame."""
        across, down = (n * (self.side + self.gap) - self.gap for n in (self.columns, self.rows))
        return self.left + across + self.right, self.top + down + self.bottom

    @property
    def figsize(self) -> tuple[float, float]:
        """The same in inches, at ``DPI``."""
        return self.size[0] / DPI, self.size[1] / DPI

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """The tile's first row and column of pixels."""
        return self.top + row * (self.side + self.gap), self.left + column * (self.side + self.gap)

    def write(self, figure: Figure, words: str, x: float, y: float, **options: Any) -> None:
        """Words whose middle lies x pixels from the left and y from the top; the figure lays nothing out itself."""
        figure.set_layout_engine("none")
        width, height = self.size
        figure.text(x / width, 1 - y / height, words, ha="center", va="center", **options)

    def paste(self, frame: np.ndarray, row: int, images: Sequence[np.ndarray]) -> None:
        """Put a row of square images of bytes, grey ``(h, h)`` or ``(h, h, 3)``, into the tiles of a frame.

        Each image is enlarged by whole pixels to the side of a tile.
        """
        for column, image in enumerate(images):
            block = image.repeat(self.side // len(image), 0).repeat(self.side // len(image), 1)
            top, left = self.corner(row, column)
            frame[top : top + self.side, left : left + self.side] = block if block.ndim == 3 else block[..., None]
