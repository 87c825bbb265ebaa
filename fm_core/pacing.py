"""Pacing: how time grids and animations run through t. NumPy only.

A pacing maps u in [0, 1], the share of the steps or frames, to the share of the time from noise to data. It never
decreases and maps 0 to 0 and 1 to 1 exactly. Steps are dense where its slope is small: at the data for
``inverse_quadratic`` and ``logarithmic``, at the noise for ``quadratic`` and ``reverse_logarithmic``. Explained in the
chapter *Seeing the velocity field*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from fm_core._checks import check_choice, check_count, described

__all__ = ["PACINGS", "Pacing", "frame_indices", "paced", "pacing_function"]

Pacing = Callable[[np.ndarray], np.ndarray]
MAX_FRAMES = 100_000


def _logarithmic(u: ArrayLike) -> np.ndarray:
    return np.log1p(9.0 * np.asarray(u)) / np.log1p(9.0)  # the slope falls from 9 / log 10 to a tenth of that


PACINGS: dict[str, Pacing] = {
    "linear": lambda u: np.asarray(u, dtype=np.float64),
    "quadratic": lambda u: np.square(u),
    "inverse_quadratic": lambda u: 1.0 - np.square(1.0 - np.asarray(u)),
    "logarithmic": _logarithmic,
    "reverse_logarithmic": lambda u: 1.0 - _logarithmic(1.0 - np.asarray(u)),
}
"""Pacings by name: ``u``, ``u²``, ``1 - (1 - u)²``, ``log(1 + 9 u) / log 10``, ``1 - log(10 - 9 u) / log 10``."""


def pacing_function(pacing: str | Pacing) -> Pacing:
    """A name in ``PACINGS`` or a function as the function; ValueError for another name."""
    if callable(pacing):  # what it returns is looked at where it is used
        return pacing
    check_choice("pacing", pacing, PACINGS)
    return PACINGS[pacing]


def paced(n_frames: int, pacing: str | Pacing = "linear") -> np.ndarray:
    """The pacing at ``n_frames`` even steps, ``(n_frames,)`` from 0 to 1; a single frame is the end, 1.

    Raises:
        ValueError: no frames or more than 100,000, an unknown name, or a function that decreases or misses an end.
    """
    n_frames = check_count("n_frames", n_frames, most=MAX_FRAMES)
    function = pacing_function(pacing)
    share = np.asarray(function(np.linspace(0.0, 1.0, n_frames) if n_frames > 1 else np.ones(1)), dtype=np.float64)
    ends = (0.0, 1.0) if n_frames > 1 else (1.0, 1.0)
    if share.shape != (n_frames,) or (share[0], share[-1]) != ends or not (np.diff(share) >= 0).all():
        raise ValueError(
            f"pacing: expected {n_frames} values that never decrease from 0 to 1, got "
            f"{np.array2string(share, threshold=6)} from {getattr(function, '__name__', function)!s}."
        )
    return share


def frame_indices(
    snapshots: int | Sequence[float] | np.ndarray, n_frames: int, pacing: str | Pacing = "linear"
) -> np.ndarray:
    """Index of the snapshot nearest in time to each paced frame, ``(n_frames,)``, from the first to the last.

    Args:
        snapshots: number of snapshots, evenly spaced in time; or their times, ``(T,)``, rising or falling.
        n_frames: at least 1; a single frame shows the last snapshot.
        pacing: a name in ``PACINGS`` or a function.

    Raises:
        ValueError: no snapshots, times that are not strictly monotone, and the errors of :func:`paced`.
    """
    try:
        times = np.asarray(snapshots)
    except (TypeError, ValueError, RuntimeError):
        times = np.empty(0)
    if times.ndim == 0:
        times = np.arange(check_count("snapshots", snapshots, most=MAX_FRAMES))
    numbers = times.ndim == 1 and len(times) > 0 and times.dtype.kind in "fiu" and np.isfinite(times).all()
    times = times.astype(np.float64) if numbers else times
    if not numbers or not (np.all(np.diff(times) > 0) or np.all(np.diff(times) < 0)):
        got = np.array2string(times, threshold=6) if numbers else described(snapshots)
        raise ValueError(f"snapshots: expected strictly rising or falling times, got {got}.")
    share = paced(n_frames, pacing)
    if len(times) == 1:
        return np.zeros(n_frames, dtype=np.int64)
    done = (times - times[0]) / (times[-1] - times[0])  # 0 to 1 in both directions of time
    return np.searchsorted((done[1:] + done[:-1]) / 2, share, side="left").astype(np.int64)
