"""The straight path from noise to data, ``x_t = (1 - t) x_0 + t x_1``, and couplings of noise and data.

A coupling is any function ``(x_0, x_1) -> (x_0, x_1)`` that pairs the two batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_core._checks import as_tensor, check_count, check_seed
from fm_core.environment import resolve_device

__all__ = ["Coupling", "PathSample", "batch_times", "check_times", "draw_noise", "expand_as", "straight_path"]

MAX_NUMBERS = 10**9  # in one draw, 4 GB

Coupling = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class PathSample:
    """A batch of points on conditional paths.

    Attributes:
        t: times, ``(B,)``, in [0, 1].
        x_0: noise, ``(B, ...)``.
        x_1: data, ``(B, ...)``.
        x_t: points, ``(B, ...)``.
        dx_t: conditional velocity ``u_t`` at the points, ``(B, ...)``; the regression target.
    """

    t: Tensor
    x_0: Tensor
    x_1: Tensor
    x_t: Tensor
    dx_t: Tensor


def straight_path(x_0: Tensor, x_1: Tensor, t: Tensor | float) -> PathSample:
    """Points on the straight paths from ``x_0`` to ``x_1`` and the velocity along them.

    ``x_t = (1 - t) x_0 + t x_1``, ``u_t = x_1 - x_0``

    Args:
        x_0: noise, ``(B, ...)``; tensors, arrays or lists.
        x_1: data, same shape.
        t: times in [0, 1], ``(B,)``, or a number for all.

    Raises:
        ValueError: shapes that do not match, NaN or infinity, or a time outside [0, 1].

    Source: Lipman et al. 2023, section 4.1, with σ_min = 0; Liu et al. 2023, equation 1. Explained in the chapter *The
    flow-matching objective*.
    """
    x_1 = as_tensor("x_1", x_1, ("B", ...), finite=True)
    x_0 = as_tensor("x_0", x_0, ("B", ...), like=x_1, finite=True)
    return interpolate(x_0, x_1, check_times(batch_times(t, x_1)))


def interpolate(x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
    """:func:`straight_path` without the check of times, for times that were just drawn, ``(B,)`` or ``(1,)``."""
    if x_0.shape != x_1.shape:
        raise ValueError(
            f"x_0: expected the shape of x_1, {tuple(x_1.shape)}, got {tuple(x_0.shape)}. Draw torch.randn_like(x_1)."
        )
    return PathSample(t.expand(len(x_1)), x_0, x_1, torch.lerp(x_0, x_1, expand_as(t, x_1)), x_1 - x_0)


def draw_noise(shape: Sequence[int], seed: int = 0, device: str | torch.device = "cpu") -> Tensor:
    """Standard normal noise that is the same on every device: drawn on the CPU from the seed, then moved.

    Args:
        shape: of the noise, such as ``(8, 1, 28, 28)``; at most 10⁹ numbers.
        seed: of a generator of its own; torch's global random state stays as it is.
        device: where the noise goes.

    Raises:
        ValueError: a shape that is none, or too large; a device that cannot be used.
    """
    lengths = [check_count("shape", n) for n in (shape if isinstance(shape, Sequence) and shape else [None])]
    check_count("shape", math.prod(lengths), most=MAX_NUMBERS)
    return torch.randn(*lengths, generator=torch.Generator().manual_seed(check_seed("seed", seed))).to(
        resolve_device(device)
    )


def batch_times(t: Tensor | float, x: Tensor) -> Tensor:
    """Times as a tensor, ``(B,)`` or ``(1,)``, in the precision and on the device of ``x``.

    Args:
        t: a number, a scalar tensor, ``(1,)`` or ``(B,)``.
        x: states, ``(B, ...)``.

    Raises:
        ValueError: another shape or type.
    """
    if not isinstance(x, Tensor) or not x.ndim:
        x = as_tensor("x", x, ("B", ...))
    if not isinstance(t, Tensor | float) or (isinstance(t, Tensor) and (t.is_complex() or t.is_meta != x.is_meta)):
        as_tensor("t", t)  # refuses what is no number
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if t.ndim > 1 or (t.ndim == 1 and len(t) not in (1, len(x))) or t.layout != torch.strided:
        raise ValueError(
            f"t: expected a scalar or one time per item, shape ({len(x)},), got shape {tuple(t.shape)} for x of shape "
            f"{tuple(x.shape)}."
        )
    return t.reshape(-1)


def check_times(t: Tensor) -> Tensor:
    """``t`` itself; the one check that times lie in [0, 1], the same on every device.

    Paths and exact velocities check what they are given, at the cost of one synchronisation on a GPU. Networks take
    any finite time, since adaptive solvers of other libraries evaluate a little beyond both ends.

    Raises:
        ValueError: a time outside [0, 1] or NaN.
    """
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(
            f"t: expected times in [0, 1], 0 is noise and 1 is data, got [{float(t.min()):g}, {float(t.max()):g}]."
        )
    return t


def expand_as(t: Tensor, x: Tensor) -> Tensor:
    """Times ``(B,)`` or ``(1,)`` with trailing axes of length one, so that they broadcast over ``x``."""
    return t.reshape(-1, *[1] * (x.ndim - 1))
