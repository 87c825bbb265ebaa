"""Sliders for digits: a path between noise and a digit, a flow with its velocity, two networks side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fm_core.plotting import VELOCITY_CMAP, Frames, figure_frames, render_frames, to_uint8
from fm_core.plotting._arrays import as_array, as_images, as_snapshots
from fm_core.sliders._moments import moments
from fm_core.sliders._tiles import DPI, LEVELS, Tiles, coarse
from fm_core.sliders.slider import TimeSlider, time_slider

__all__ = ["compare_slider", "path_slider", "trajectory_slider"]


def path_slider(x_0: Any, x_1: Any, *, alt: str, label: str = "time t", frames: int = 41, **options: Any) -> TimeSlider:
    """The straight path ``x_t = (1 - t) x_0 + t x_1`` of one or several digits, beside its two ends.

    Args:
        x_0: noise, ``(N, 1, 28, 28)`` or one image, pixels around [-1, 1].
        x_1: digits, same shape.
        alt: says what is to be seen, how it changes with t included.
        label: of the slider.
        frames: how many, from t = 0 to t = 1.
        options: more of :func:`time_slider`.

    Raises:
        ValueError: ends of different shapes, more than 8 digits, and what ``time_slider`` refuses.

    Explained in the chapter *The flow-matching objective*.
    """
    start, end = (as_images(x, name) for x, name in ((_batch(x_0), "x_0"), (_batch(x_1), "x_1")))
    if start.shape != end.shape or start.shape[1] != start.shape[2]:
        raise ValueError(
            f"x_0 has shape {start.shape} and x_1 {end.shape}; both ends of a path need the same square images."
        )
    if len(start) > 8:
        raise ValueError(f"x_0 holds {len(start)} digits; a slider shows up to 8. Take the first ones, x_0[:4].")
    if frames != int(frames) or frames < 2:
        raise ValueError(f"frames={frames}; a slider needs a whole number of them, at least 2.")
    t = np.linspace(0, 1, int(frames))
    names, one = ("$x_0$, noise", "$x_t$", "$x_1$, data"), len(start) == 1
    scale = (6 if one else 4) * max(1, 28 // start.shape[1])
    tiles = (
        Tiles(1, 3, scale * start.shape[1], gap=24, top=34)
        if one
        else Tiles(3, len(start), scale * start.shape[1], left=110)
    )

    def words(figure: Any, _: int) -> None:
        for i, name in enumerate(names):
            top, left = tiles.corner(0, i) if one else tiles.corner(i, 0)
            x, y = (left + tiles.side / 2, top - 16) if one else (left / 2, top + tiles.side / 2)
            tiles.write(figure, name, x, y, fontsize=12)

    film = figure_frames(words, 1, figsize=tiles.figsize, dpi=DPI).repeat(len(t), axis=0)
    for frame, s in zip(film, t, strict=True):
        rows = to_uint8(coarse(np.stack([start, (1 - s) * start + s * end, end])))  # (3, N, H, W)
        for i, row in enumerate(rows.swapaxes(0, 1) if one else rows):
            tiles.paste(frame, i, row)
    return time_slider(film, t, **({"alt": alt, "label": label} | options))


def _batch(x: Any) -> np.ndarray:
    """One image with its channel axis, ``(1, H, W)``, becomes a batch."""
    images = as_array(x)
    return images[None] if images.ndim == 3 and images.shape[0] == 1 else images


def trajectory_slider(
    trajectory: Any,
    *,
    samples: int | Sequence[int] = 4,
    alt: str,
    label: str = "time t",
    frames: int = 31,
    factor: int = 4,
    **options: Any,
) -> TimeSlider:
    """States of a flow with their ink arrows, and below each its exact velocity, pixel by pixel.

    Arrow lengths and colours share one scale over all samples and moments. The arrows are those of ``render_frames``:
    the gradient of the block-averaged velocity, faded over the last tenth of the way.

    Args:
        trajectory: with ``.t`` ``(T,)``, ``.x`` and ``.velocity`` ``(T, B, 1, H, W)``, as ``fm_core.solve`` gives it.
        samples: how many of the batch, or which ones, up to 8.
        alt: says what is to be seen, how it changes with t included.
        label: of the slider.
        frames: at most so many of the T moments are shown, evenly chosen, the first and the last among them.
        factor: side of an arrow's block, in pixels.
        options: more of :func:`time_slider`.

    Raises:
        ValueError: a trajectory without velocities, samples outside the batch, and what ``time_slider`` refuses.

    Explained in the chapter *Seeing the velocity field*.
    """
    t, x, velocity = as_snapshots(trajectory, with_velocity=True)
    picked = list(range(min(samples, x.shape[1]))) if np.ndim(samples) == 0 else list(samples)
    if not 0 < len(picked) <= 8 or not all(-x.shape[1] <= i < x.shape[1] for i in picked):
        raise ValueError(f"samples={samples!r}; 1 to 8 of the {x.shape[1]} samples of the batch are wanted.")
    if x.shape[2] != x.shape[3]:
        raise ValueError(f"trajectory.x has images of {x.shape[2]} × {x.shape[3]} pixels; square ones are wanted.")
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    chosen = moments(len(t), frames)
    above = _film({"": trajectory}, chosen, samples=picked, arrows=True, factor=factor, scale=4)
    fields = velocity[chosen][:, picked]
    limit = float(np.percentile(np.abs(fields), 99.5)) or 1.0
    colors = ScalarMappable(Normalize(-limit, limit), VELOCITY_CMAP)
    tiles = Tiles(2, len(picked), 4 * x.shape[3], left=112, right=92)

    def words(figure: Any, _: int) -> None:
        for i, name in enumerate(("state and\nink arrows", "velocity,\npixel by pixel")):
            top, left = tiles.corner(i, 0)
            tiles.write(figure, name, left / 2, top + tiles.side / 2, fontsize=10.5)
        (width, height), (top, left) = tiles.size, tiles.corner(1, len(picked))
        place = left / width, 1 - (top + tiles.side) / height, 12 / width, tiles.side / height
        bar = figure.colorbar(colors, cax=figure.add_axes(place))
        bar.set_label("grey levels\nper unit time", fontsize=10)
        bar.ax.tick_params(labelsize=9)
        bar.outline.set_visible(False)

    film = figure_frames(words, 1, figsize=tiles.figsize, dpi=DPI).repeat(len(chosen), axis=0)
    for k, frame in enumerate(film):
        states = [above[k][y : y + tiles.side, x : x + tiles.side] for y, x in above.tiles[""]]
        tiles.paste(frame, 0, states)
        tiles.paste(
            frame, 1, [colors.to_rgba(field, bytes=True)[..., :3] for field in coarse(fields[k], limit, LEVELS)]
        )
    return time_slider(film, t[chosen], **({"alt": alt, "label": label} | options))


def compare_slider(
    trajectories: Mapping[str, Any],
    *,
    samples: int | Sequence[int] = 5,
    alt: str,
    label: str = "time t",
    frames: int = 51,
    arrows: bool = False,
    scale: int = 4,
    **options: Any,
) -> TimeSlider:
    """Flows of several networks below each other, at the same t in every row.

    Args:
        trajectories: ``{label: Trajectory}`` of grey images, one row each, recorded at the same times.
        samples: how many of the batch, or which ones.
        alt: says what is to be seen, how it changes with t included.
        label: of the slider.
        frames: at most so many of the T moments are shown, evenly chosen, the first and the last among them.
        arrows: whether to draw ink arrows over the states.
        scale: pixels of the picture per pixel of the digit.
        options: more of :func:`time_slider`.

    Raises:
        ValueError: trajectories of unlike times, and what ``render_frames`` and ``time_slider`` refuse.

    Explained in the chapter *Residual vs. Base*.
    """
    if not isinstance(trajectories, Mapping) or not trajectories:
        raise ValueError("trajectories must be a mapping {label: Trajectory} with at least one row.")
    times = {name: as_array(one.t) for name, one in trajectories.items()}
    first = next(iter(times.values()))
    for name, t in times.items():
        if t.shape != first.shape or not np.allclose(t, first):
            raise ValueError(f"trajectory {name!r} has other times than the first one; solve all on the same grid.")
    chosen = moments(len(first), frames)
    film = _film(trajectories, chosen, samples=samples, arrows=arrows, scale=scale)
    return time_slider(film, first[chosen], **({"alt": alt, "label": label} | options))


def _film(trajectories: Mapping[str, Any], chosen: np.ndarray, **options: Any) -> Frames:
    """One frame of ``render_frames`` for each chosen moment, whatever the spacing of the times."""
    shown = {name: _Picked(one, chosen) for name, one in trajectories.items()}
    t = next(iter(shown.values())).t
    share = (t - t[0]) / (t[-1] - t[0])

    def pacing(u: np.ndarray) -> np.ndarray:
        return np.interp(u, np.linspace(0, 1, len(share)), share)

    return render_frames(shown, frames=len(chosen), pacing=pacing, **options)


class _Picked:
    """Some moments of a Trajectory."""

    def __init__(self, trajectory: Any, chosen: np.ndarray) -> None:
        self.t = as_array(trajectory.t)[chosen].astype(float)
        self.x = coarse(as_array(trajectory.x)[chosen]).astype(np.float32)
        self.velocity = None if trajectory.velocity is None else as_array(trajectory.velocity)[chosen]
        self.nfe = getattr(trajectory, "nfe", None)
