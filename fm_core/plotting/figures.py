"""Frames from figures: what matplotlib draws, as bytes, for films and sliders.

A new figure is made for each frame, which is faster than to clear an old one. The layout of the first frame is kept for
all: laying out costs more than drawing, and a layout of its own would make each frame jump.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_core.plotting.style import CARD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_frames"]


def figure_frames(
    draw: Callable[[Figure, int], Any], count: int, *, figsize: tuple[float, float], dpi: float = 110
) -> np.ndarray:
    """Draw ``count`` figures and return their pixels.

    The layout is worked out for the first frame and kept, so that nothing jumps: every frame should have the same axes.

    Args:
        draw: called as ``draw(figure, k)`` with an empty figure, for k = 0, ..., count - 1.
        count: how many frames, at least 1.
        figsize: width and height in inches.
        dpi: pixels per inch.

    Returns:
        ``(count, H, W, 3)`` bytes.

    Raises:
        ValueError: no frames, or a size that is not positive.

    Used by the sliders of ``fm_core.sliders``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if count != int(count) or count < 1:
        raise ValueError(f"count={count}; a film needs a whole number of frames, at least 1.")
    if not (len(figsize) == 2 and min(figsize) > 0 and dpi > 0):
        raise ValueError(f"figsize={figsize} inches at dpi={dpi}; width, height and dpi must be positive.")
    frames, places = [], None
    for k in range(int(count)):
        figure = Figure(figsize=figsize, dpi=dpi, facecolor=CARD)
        canvas = FigureCanvasAgg(figure)
        draw(figure, k)
        if places is not None and len(places) == len(figure.axes):
            figure.set_layout_engine("none")
            for ax, place in zip(figure.axes, places, strict=True):
                ax.set_position(place, which="original")
        canvas.draw()
        places = [ax.get_position(original=True) for ax in figure.axes]
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(frames)
