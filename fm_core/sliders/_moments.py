"""Which moments of a trajectory a slider shows."""

from __future__ import annotations

import numpy as np

__all__ = ["moments"]


def moments(count: int, frames: int) -> np.ndarray:
    """Indices of at most ``frames`` of ``count`` moments: evenly spaced, the first and the last among them.

    Raises:
        ValueError: fewer than two moments, or room for fewer than two.
    """
    if count < 2:
        raise ValueError(f"trajectory holds {count} moment; a slider over t needs at least 2. Solve with keep=True.")
    if frames != int(frames) or frames < 2:
        raise ValueError(f"frames={frames}; a slider needs a whole number of them, at least 2.")
    step = -(-(count - 1) // (int(frames) - 1))
    picks = np.arange(0, count, step)
    return picks if picks[-1] == count - 1 else np.append(picks, count - 1)
