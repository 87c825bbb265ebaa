"""The straight path from noise to data, and couplings that say which noise meets which data.

Only the straight path is here: ``x_t = (1 - t) x_0 + t x_1``, whose velocity ``x_1 - x_0`` does not depend on t. A
coupling is any function ``(x_0, x_1) -> (x_0, x_1)`` that pairs the two batches anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Coupling", "PathSample", "expand_time", "independent_coupling", "straight_path"]

Coupling = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class PathSample:
    """A batch of points on conditional paths.

    Attributes:
        t: times, ``(B,)``, in [0, 1].
        x_0: noise, ``(B, ...)``.
        x_1: data, ``(B, ...)``.
        x_t: the points, ``(B, ...)``.
        dx_t: conditional velocity ``u_t`` at the points, ``(B, ...)``; what a network is trained to give.
    """

    t: Tensor
    x_0: Tensor
    x_1: Tensor
    x_t: Tensor
    dx_t: Tensor


def expand_time(t: Tensor, x: Tensor) -> Tensor:
    """Times with trailing axes of length one, so that they broadcast over a batch.

    Args:
        t: ``(B,)`` or a scalar tensor.
        x: ``(B, ...)``.

    Returns:
        ``(B, 1, ..., 1)`` or ``(1, 1, ..., 1)``, with as many axes as ``x``.

    Raises:
        ValueError: a ``t`` that fits no batch of ``x``; the message holds both shapes.
    """
    if t.ndim > 1 or (t.ndim == 1 and len(t) not in (1, len(x))):
        raise ValueError(
            f"t has shape {tuple(t.shape)} and x has shape {tuple(x.shape)}; t must be a scalar or hold one time per "
            f"item of the batch, shape ({len(x)},)."
        )
    return t.reshape(-1, *[1] * (x.ndim - 1))


def straight_path(x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
    """Points on the straight lines from ``x_0`` to ``x_1``, with the velocity along them.

    ``x_t = (1 - t) x_0 + t x_1``, ``u_t = x_1 - x_0``

    Args:
        x_0: noise, ``(B, ...)``.
        x_1: data, same shape.
        t: times in [0, 1], ``(B,)`` or a scalar tensor (then all share it).

    Raises:
        ValueError: shapes that do not fit, or a time outside [0, 1].

    Source: Lipman et al. 2023, section 4.1, with σ_min = 0; Liu et al. 2023, equation 1. Explained in the chapter *The
    flow-matching objective*; used in *Training and tracking*.
    """
    if x_0.shape != x_1.shape:
        raise ValueError(
            f"x_0 has shape {tuple(x_0.shape)} and x_1 has shape {tuple(x_1.shape)}; both ends of a path need the same "
            "shape. Draw x_0 = torch.randn_like(x_1)."
        )
    s = expand_time(t, x_1)
    if t.device.type == "cpu" and not bool(((t >= 0) & (t <= 1)).all()):  # on a GPU the look would stall the stream
        raise ValueError(
            f"t spans [{float(t.min()):g}, {float(t.max()):g}]; times run from 0 (noise) to 1 (data). Draw them with "
            "torch.rand."
        )
    return PathSample(t=t.expand(len(x_1)), x_0=x_0, x_1=x_1, x_t=torch.lerp(x_0, x_1, s.to(x_1)), dx_t=x_1 - x_0)


def independent_coupling(x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor]:
    """Leave the two batches as they were drawn: noise and data are independent.

    Args:
        x_0: noise, ``(B, ...)``.
        x_1: data, ``(B, ...)``.
    """
    return x_0, x_1
