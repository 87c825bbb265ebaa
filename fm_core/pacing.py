"""Pacing: how fast an animation runs through t.

A pacing function maps the share of the frames shown, u in [0, 1], to the share of the way from noise to data. Each one
never decreases, sends 0 to 0 and 1 to 1 exactly, and so a film always opens on the noise and closes on the sample,
whatever the number of frames. Slow where the slope is small: the ``inverse_`` and ``logarithmic`` ones linger at the
end, where a digit gets its last strokes; ``quadratic`` and ``reverse_logarithmic`` linger in the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "PACINGS",
    "frame_indices",
    "inverse_quadratic",
    "linear",
    "logarithmic",
    "paced",
    "quadratic",
    "reverse_logarithmic",
]

Pacing = Callable[[np.ndarray], np.ndarray]

_CURVATURE = 9.0  # the logarithmic pacing starts (1 + 9) times as fast as it ends


def linear(u: Any) -> np.ndarray:
    """Even pace: ``u``.

    Args:
        u: share of the frames, any shape, in [0, 1].

    Explained in the chapter *Seeing the velocity field*.
    """
    return _unit(u)


def quadratic(u: Any) -> np.ndarray:
    """Slow start, fast end: ``u²``.

    Args:
        u: share of the frames, any shape, in [0, 1].

    Explained in the chapter *Seeing the velocity field*.
    """
    u = _unit(u)
    return u * u


def inverse_quadratic(u: Any) -> np.ndarray:
    """Fast start, slow end: ``1 - (1 - u)²``, the quadratic pacing run backwards.

    Args:
        u: share of the frames, any shape, in [0, 1].

    Explained in the chapter *Seeing the velocity field*.
    """
    rest = 1.0 - _unit(u)
    return 1.0 - rest * rest


def logarithmic(u: Any) -> np.ndarray:
    """Very fast start, slow end: ``log(1 + 9 u) / log(10)``.

    Args:
        u: share of the frames, any shape, in [0, 1].

    Explained in the chapter *Seeing the velocity field*.
    """
    return np.log1p(_CURVATURE * _unit(u)) / np.log1p(_CURVATURE)


def reverse_logarithmic(u: Any) -> np.ndarray:
    """Slow start, very fast end: ``1 - log(10 - 9 u) / log(10)``, the logarithmic pacing run backwards.

    Args:
        u: share of the frames, any shape, in [0, 1].

    Explained in the chapter *Seeing the velocity field*.
    """
    return 1.0 - logarithmic(1.0 - _unit(u))


PACINGS: dict[str, Pacing] = {
    f.__name__: f for f in (linear, quadratic, inverse_quadratic, logarithmic, reverse_logarithmic)
}
"""The pacing functions by name."""


def paced(n_frames: int, pacing: str | Pacing = "linear") -> np.ndarray:
    """Share of the way shown in each frame: the pacing at ``n_frames`` even steps, ``(n_frames,)``, from 0 to 1.

    Args:
        n_frames: at least 1; a single frame shows the end, 1.
        pacing: a name in ``PACINGS``, or a function of an array in [0, 1].

    Raises:
        ValueError: no frames, an unknown name, or a function that decreases or misses an end.
    """
    if n_frames < 1:
        raise ValueError(f"n_frames={n_frames}; an animation needs at least 1 frame.")
    if isinstance(pacing, str):
        if pacing not in PACINGS:
            raise ValueError(f"pacing={pacing!r} is not known; choose one of {', '.join(PACINGS)}.")
        function = PACINGS[pacing]
    else:
        function = pacing
    share = np.asarray(function(np.linspace(0.0, 1.0, n_frames) if n_frames > 1 else np.ones(1)), dtype=np.float64)
    ends = (0.0, 1.0) if n_frames > 1 else (1.0, 1.0)
    if share.shape != (n_frames,) or (share[0], share[-1]) != ends or (np.diff(share) < 0).any():
        raise ValueError(
            f"pacing={getattr(function, '__name__', function)!s} gives {np.array2string(share, threshold=6)}; a pacing "
            "must never decrease and must send 0 to 0 and 1 to 1 exactly."
        )
    return share


def frame_indices(snapshots: int | Any, n_frames: int, pacing: str | Pacing = "linear") -> np.ndarray:
    """Which recorded snapshot each frame shows: the one nearest to the paced time, ``(n_frames,)`` integers.

    The first frame shows the first snapshot and the last frame the last one; the indices never decrease. One snapshot
    is repeated; a single frame shows the last snapshot.

    Args:
        snapshots: how many there are, evenly spread in time; or their times, ``(T,)``, rising or falling.
        n_frames: at least 1.
        pacing: a name in ``PACINGS``, or a function of an array in [0, 1].

    Raises:
        ValueError: no snapshots, times that are not strictly monotone, and what ``paced`` refuses.

    Explained in the chapter *Seeing the velocity field*.
    """
    times = np.atleast_1d(np.asarray(snapshots, dtype=np.float64))
    if np.ndim(snapshots) == 0:
        if snapshots < 1:
            raise ValueError(f"snapshots={snapshots}; at least 1 recorded snapshot is needed.")
        times = np.arange(int(snapshots), dtype=np.float64)
    steps = np.diff(times)
    if len(times) == 0 or not (np.all(steps > 0) or np.all(steps < 0)):
        raise ValueError(
            f"snapshots={np.array2string(times, threshold=6)}; times must be strictly rising or strictly falling."
        )
    share = paced(n_frames, pacing)
    if len(times) == 1:
        return np.zeros(n_frames, dtype=np.int64)
    done = (times - times[0]) / (times[-1] - times[0])  # 0 to 1, rising for both directions of time
    return np.searchsorted((done[1:] + done[:-1]) / 2, share, side="left").astype(np.int64)


def _unit(u: Any) -> np.ndarray:
    u = np.asarray(u, dtype=np.float64)
    if not ((u >= 0) & (u <= 1)).all():
        raise ValueError(f"u spans [{u.min():g}, {u.max():g}]; the share of the frames runs from 0 to 1.")
    return u
