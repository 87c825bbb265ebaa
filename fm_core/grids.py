"""Time grids: the times at which a solver steps, made by functions apart from the methods that step.

Grids are float64 on the CPU. Step sizes are differences of neighbouring times, and those should not carry the rounding
of a float32 state; :func:`fm_core.solvers.solve` casts the times themselves to the state's precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["checked_grid", "paced_grid", "uniform_grid"]


def uniform_grid(steps: int, *, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Equally spaced times.

    ``t_k = start + (end - start) k / steps``

    Args:
        steps: number of steps, at least 1.
        start, end: first and last time, both met exactly; ``start=1.0, end=0.0`` goes from data to noise.

    Returns:
        ``(steps + 1,)``, float64 on the CPU; :func:`solve` casts it.

    Raises:
        ValueError: no step, or two ends that are equal or not finite.

    Explained in the chapter *Integrating the flow*.
    """
    grid = start + (end - start) * _unit_grid(steps, start, end)
    grid[-1] = end
    return grid


def paced_grid(steps: int, pacing: Callable[[np.ndarray], Any], *, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Times spaced by a pacing function.

    ``t_k = start + (end - start) p(k / steps)``

    Args:
        steps: number of steps, at least 1.
        pacing: p, strictly rising from p(0) = 0 to p(1) = 1. It gets a float64 NumPy array or, where that raises a
            TypeError or AttributeError, a tensor; it works element by element.
        start, end: first and last time, both met exactly.

    Returns:
        ``(steps + 1,)``, float64 on the CPU.

    Raises:
        ValueError: as :func:`uniform_grid`; or a pacing that changes the shape, misses an end or does not rise.

    Explained in the chapter *Integrating the flow*.
    """
    s = _unit_grid(steps, start, end)
    try:
        paced = pacing(s.numpy())
    except (TypeError, AttributeError):  # written for tensors
        paced = pacing(s)
    p = _float64(paced)
    if p.shape != s.shape:
        raise ValueError(
            f"pacing returned shape {tuple(p.shape)} for {steps + 1} times; it must work element by element, for "
            "example pacing=lambda s: s**2."
        )
    if not (abs(p[0]) < 1e-6 and abs(p[-1] - 1) < 1e-6 and bool((p.diff() > 0).all())):
        raise ValueError(
            f"pacing goes from {float(p[0]):g} to {float(p[-1]):g}, smallest step {float(p.diff().min()):g}; it must "
            "rise strictly from 0 to 1, for example pacing=lambda s: s**2."
        )
    grid = start + (end - start) * p
    grid[0], grid[-1] = start, end  # whatever the pacing rounds to
    return grid


def checked_grid(t: Tensor | np.ndarray | Sequence[float]) -> Tensor:
    """The times as float64 on the CPU, once they are known to make a grid.

    Args:
        t: times, ``(T,)``, on any device.

    Raises:
        ValueError: not one-dimensional, fewer than 2 times, a time that is not finite, or times not strictly monotone.
    """
    grid = _float64(t)
    cure = "make one with uniform_grid(steps) or paced_grid(steps, pacing)."
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(
            f"t has shape {tuple(grid.shape)}; a time grid is one-dimensional with at least 2 times; {cure}"
        )
    if not bool(grid.isfinite().all()):
        raise ValueError(f"t holds {int((~grid.isfinite()).sum())} times that are not finite; {cure}")
    steps = grid.diff()
    if not bool((steps > 0).all() or (steps < 0).all()):
        k = int((steps * (grid[-1] - grid[0]) <= 0).nonzero()[0])
        raise ValueError(
            f"t goes from {grid[k]:g} to {grid[k + 1]:g} between places {k} and {k + 1}; times must strictly rise or "
            f"strictly fall; {cure}"
        )
    return grid


def _unit_grid(steps: int, start: float, end: float) -> Tensor:
    if steps < 1 or steps != int(steps):
        raise ValueError(f"steps={steps}: give a whole number of at least 1.")
    if not (math.isfinite(start) and math.isfinite(end)) or start == end:
        raise ValueError(f"start={start}, end={end}: give two different finite times, for example 0.0 and 1.0.")
    return torch.linspace(0, 1, int(steps) + 1, dtype=torch.float64)


def _float64(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().to("cpu", torch.float64)
    return torch.from_numpy(np.array(values, dtype=np.float64, order="C"))  # a copy: no negative strides, writable
