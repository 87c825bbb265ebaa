"""Film frames straight from arrays: rows are models, columns are samples, every frame shows one moment.

Each frame is composed as palette indices with NumPy: digits are looked up, enlarged by whole pixels, and stamped with
ready-drawn arrows. No figure is drawn and no colour is reduced, which is what makes it fast. The dark card reads the
same on light and on dark pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fm_core.plotting._arrays import as_snapshots
from fm_core.plotting._drawing import GREYS, arrow_bank, film_palette, stamp, tint
from fm_core.plotting._layout import Layout
from fm_core.plotting.images import to_uint8
from fm_core.pacing import Pacing, frame_indices, paced
from fm_core.plotting.velocity import ink_arrows

__all__ = ["Frames", "render_frames"]

_FADE = 0.1  # arrows fade over the last tenth of the way, so that the sample stands bare at the end


@dataclass(frozen=True)
class Frames:
    """A film in memory: palette indices and the one palette that all frames share.

    ``len(frames)`` counts them, ``frames[i]`` is frame i in colour, ``np.asarray(frames)`` is the whole film,
    ``(F, H, W, 3)`` bytes.

    Attributes:
        indices: ``(F, H, W)`` bytes, into the palette.
        palette: ``(K, 3)`` bytes, RGB, at most 64 colours.
        times: ``(rows, F)``, the t that each row shows in each frame.
        tiles: row label → one (top, left) per sample, the corner of its digit in the frame, in pixels.
        scale: pixels of the frame per pixel of the digit.
    """

    indices: np.ndarray
    palette: np.ndarray
    times: np.ndarray
    tiles: Mapping[str, Sequence[tuple[int, int]]]
    scale: int

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int | slice) -> np.ndarray:
        return self.palette[self.indices[i]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def render_frames(
    trajectories: Mapping[str, Any] | Any,
    *,
    samples: int | Sequence[int] = 5,
    frames: int = 100,
    pacing: str | Pacing | Mapping[str, str | Pacing] = "linear",
    arrows: bool = True,
    factor: int = 4,
    scale: int = 4,
    interpolate: bool = False,
) -> Frames:
    """Draw the frames of a film: one row per trajectory, one column per sample.

    Above each row stand its label and its NFE, above the first one also t; below runs a progress bar. The arrows are
    the gradient of the block-averaged velocity, pointing where ink arrives, not a particle velocity in the plane; they
    share one length scale over all rows and frames (the 98th percentile is the longest) and fade over the last tenth
    of the way, so that the last frame is the sample itself.

    Args:
        trajectories: ``{label: Trajectory}`` of grey images, or one Trajectory without label. All start at the same t
            and end at the same t.
        samples: how many of the batch, or which ones; shorter batches show what they have.
        frames: how many, at least 1.
        pacing: how the frames run through t, a name in ``PACINGS`` or a function; or one per label, and then each row
            has its own t and bar.
        arrows: whether to draw them; they need the trajectory's velocity.
        factor: side of an arrow's block, in pixels of the digit.
        scale: pixels of the frame per pixel of the digit; digits are enlarged by whole pixels, nothing is smoothed.
        interpolate: show states between two snapshots, on the straight line that joins them, for smoother motion from
            few snapshots. For Euler that line is the way the solver went; for higher orders it is a chord. By default
            each frame shows the nearest recorded snapshot and its t.

    Raises:
        ValueError: no trajectories, unlike times or image sizes, samples outside the batch, and what ``paced`` and
            ``ink_arrows`` refuse.

    Explained in the chapter *Seeing the velocity field*.
    """
    if not isinstance(trajectories, Mapping):
        trajectories = {"": trajectories}
    if not trajectories:
        raise ValueError("trajectories is empty; give at least one label with its Trajectory.")
    if scale < 1 or scale != int(scale):
        raise ValueError(f"scale={scale}; it is the whole number of screen pixels per pixel of the digit, such as 4.")
    paces = pacing if isinstance(pacing, Mapping) else dict.fromkeys(trajectories, pacing)
    if set(paces) != set(trajectories):
        raise ValueError(f"pacing has the labels {sorted(paces)}; trajectories have {sorted(trajectories)}.")
    clips = {
        label: _clip(label, trajectory, samples, frames, paces[label], arrows, interpolate)
        for label, trajectory in trajectories.items()
    }
    for what, values in (
        ("image sizes", {label: clip.x.shape[2:] for label, clip in clips.items()}),
        ("first and last t", {label: clip.ends for label, clip in clips.items()}),
    ):
        if len(set(values.values())) != 1:
            raise ValueError(f"trajectories have unlike {what}, {values}; a film needs the same for every row.")

    rows = {label: (getattr(trajectories[label], "nfe", None), clip.x.shape[1]) for label, clip in clips.items()}
    height, width = next(iter(clips.values())).x.shape[2:]
    shared = all(np.array_equal(clip.t, next(iter(clips.values())).t) for clip in clips.values())
    layout = Layout(rows, (height * scale, width * scale), scale, one_clock=shared)
    film = np.broadcast_to(layout.background(), (frames, *layout.size)).copy()
    fields = {label: ink_arrows(clip.velocity, factor)[2:] for label, clip in clips.items() if arrows}
    longest = max((float(np.percentile(np.hypot(*field), 98)) for field in fields.values()), default=1.0) or 1.0
    bank = arrow_bank(factor * scale) if arrows else None
    for row, (label, clip) in enumerate(clips.items()):
        greys = np.rint(to_uint8(clip.x) * ((GREYS - 1) / 255)).astype(np.uint8)
        for i in range(frames):
            canvas = film[i]
            digits = greys[clip.pick[i]].repeat(scale, axis=1).repeat(scale, axis=2)
            strength = min(1.0, (1.0 - clip.done[i]) / _FADE)
            if bank is not None and strength > 0:
                dx, dy = (part[clip.pick[i]] / longest for part in fields[label])
                digits = tint(round(3 * strength) / 3)[stamp(dx, dy, bank, digits.shape[1:]) * GREYS + digits]
            for (top, left), digit in zip(layout.tiles[label], digits, strict=True):
                canvas[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
            layout.clock(canvas, row, float(clip.t[i]), float(clip.done[i]))
    return Frames(film, film_palette(), np.stack([clip.t for clip in clips.values()]), layout.tiles, scale)


@dataclass(frozen=True)
class _Clip:
    """One row of the film: its states (K, N, H, W), and for each frame which of them, t, and the share of the way."""

    x: np.ndarray
    velocity: np.ndarray | None
    pick: np.ndarray
    t: np.ndarray
    done: np.ndarray
    ends: tuple[float, float]


def _clip(
    label: str,
    trajectory: Any,
    samples: int | Sequence[int],
    frames: int,
    pacing: str | Pacing,
    arrows: bool,
    interpolate: bool,
) -> _Clip:
    t, x, velocity = as_snapshots(trajectory, with_velocity=arrows)
    chosen = list(range(min(samples, x.shape[1]))) if np.ndim(samples) == 0 else list(samples)
    if not chosen or not all(-x.shape[1] <= i < x.shape[1] for i in chosen):
        raise ValueError(f"samples={samples!r} does not fit the {x.shape[1]} samples of trajectory {label!r}.")
    x, velocity = x[:, chosen], None if velocity is None else velocity[:, chosen]
    ends = (round(float(t[0]), 5), round(float(t[-1]), 5))
    pick = frame_indices(t, frames, pacing)
    if not interpolate or len(t) == 1:
        time, span = t[pick].astype(np.float64), float(t[-1] - t[0])
        return _Clip(x, velocity, pick, time, (time - t[0]) / span if span else np.ones(frames), ends)
    done = paced(frames, pacing)
    way = (t - t[0]) / (t[-1] - t[0])
    right = np.clip(np.searchsorted(way, done), 1, len(t) - 1)
    weight = np.clip((done - way[right - 1]) / (way[right] - way[right - 1]), 0, 1)[:, None, None, None].astype(x.dtype)
    between = [None if a is None else (1 - weight) * a[right - 1] + weight * a[right] for a in (x, velocity)]
    return _Clip(*between, np.arange(frames), t[0] + done * (t[-1] - t[0]), done, ends)
