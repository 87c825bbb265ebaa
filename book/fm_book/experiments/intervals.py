"""Intervals over seeds: a network trained three times is three numbers, and the book shows how far they lie apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy.stats import t as student

__all__ = ["seed_difference", "seed_interval"]


def seed_interval(values: Sequence[float], level: float = 0.95) -> dict[str, Any]:
    """Mean over seeds with Student's interval for it.

    ``mean ± t_{n-1} s / √n`` with s the standard deviation over the n seeds. At three seeds t is 4.3: the interval is
    wide because three seeds say little.

    Args:
        values: one number a seed.
        level: coverage, in (0, 1).

    Returns:
        ``mean``, ``low``, ``high`` and the ``values`` themselves; the ends are None for a single seed.

    Raises:
        ValueError: no value.
    """
    values = [float(v) for v in values]
    if not values:
        raise ValueError("values is empty; give one number a seed.")
    mean = statistics.fmean(values)
    low = high = None
    if len(values) > 1:
        half = student.ppf((1 + level) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
        low, high = mean - half, mean + half
    return {"mean": mean, "low": low, "high": high, "values": values}


def seed_difference(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> dict[str, Any]:
    """Interval for the mean of ``a - b``, paired seed by seed: both saw the same images, noise and times.

    Args:
        a, b: one number a seed, in the same order.
        level: coverage, in (0, 1).

    Raises:
        ValueError: different numbers of seeds, or none.
    """
    if len(a) != len(b):
        raise ValueError(f"a holds {len(a)} seeds and b {len(b)}; pairs need the same seeds in both.")
    return seed_interval([x - y for x, y in zip(a, b, strict=True)], level)
