"""Losses that the experiments compare: other times, weights and couplings in the flow-matching loss."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fm_core.losses import flow_matching_loss
from fm_core.solvers import Velocity

__all__ = ["optimal_coupling", "shaped_times", "times_loss"]


def shaped_times(
    count: int, *, share: float, mean: float, scale: float, like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Times of which a share is logit-normal, ``t = sigmoid(mean + scale z)`` with ``z ~ N(0, 1)``, the others uniform.

    Args:
        count: how many.
        share: of logit-normal times, in [0, 1].
        mean, scale: of the logit.
        like: gives dtype and device.
        generator: random numbers, on the device of ``like``.

    Returns:
        ``(count,)``, in (0, 1).

    Source: Esser et al. 2024, section 3.1 (logit-normal times).
    """
    u, pick = torch.rand(2, count, generator=generator, device=like.device, dtype=like.dtype)
    z = torch.randn(count, generator=generator, device=like.device, dtype=like.dtype)
    return torch.where(pick < share, torch.sigmoid(mean + scale * z), u)


def times_loss(
    velocity: Velocity,
    x_1: Tensor,
    *,
    generator: torch.Generator | None = None,
    share: float = 0.5,
    mean: float = -0.9,
    scale: float = 0.9,
    coupled: bool = False,
) -> Tensor:
    """Flow-matching loss at :func:`shaped_times`; with ``coupled``, noise and data are paired by optimal transport.

    Args:
        velocity: network or any callable ``velocity(x, t)``.
        x_1: data, ``(B, ...)``.
        generator: random numbers, on the device of ``x_1``.
        share, mean, scale: as in :func:`shaped_times`.
        coupled: pair each batch with :func:`optimal_coupling`.
    """
    t = shaped_times(len(x_1), share=share, mean=mean, scale=scale, like=x_1, generator=generator)
    coupling = optimal_coupling if coupled else None
    return flow_matching_loss(velocity, x_1, t=t, coupling=coupling, generator=generator)


def optimal_coupling(x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of a batch with the least sum of squared distances.

    Args:
        x_0: noise, ``(B, ...)``.
        x_1: data, same shape.

    Source: Tong et al. 2024, section 3.2; Pooladian et al. 2023.
    """
    cost = torch.cdist(x_0.flatten(1), x_1.flatten(1)).square().cpu().numpy()
    rows, columns = linear_sum_assignment(cost)
    return x_0[rows], x_1[columns]
