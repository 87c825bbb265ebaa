"""Losses that the experiments compare: other times, weights and couplings in the flow-matching loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fm_core.data import dequantize
from fm_core.few_steps import optimal_coupling
from fm_core.likelihood import LOGIT_EDGE, LOGIT_SCALE, to_logit
from fm_core.losses import flow_matching_loss
from fm_core.solvers import Velocity

__all__ = ["fresh_logit", "likelihood_logit_loss", "logit_loss", "shaped_times", "times_loss"]

NEAREST = 1e-3  # 1 - t of the last times that the likelihood's loss draws


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
        coupled: pair each batch with :func:`fm_core.few_steps.optimal_coupling`.
    """
    t = shaped_times(len(x_1), share=share, mean=mean, scale=scale, like=x_1, generator=generator)
    coupling = optimal_coupling if coupled else None
    return flow_matching_loss(velocity, x_1, t=t, coupling=coupling, generator=generator)


def fresh_logit(z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Images in logits with new noise in the bins: the levels are found again and dequantised once more.

    Args:
        z: from :func:`fm_core.likelihood.to_logit`, ``(B, ...)``.
        generator: random numbers, on the device of ``z``.
    """
    s = ((z.double() * LOGIT_SCALE).sigmoid() - LOGIT_EDGE) / (1 - 2 * LOGIT_EDGE)
    level = (s * 256).floor().clamp(0, 255)
    return to_logit(dequantize((level / 127.5 - 1).to(z.dtype), generator))[0]


def logit_loss(velocity: Velocity, x_1: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Flow-matching loss of :func:`fresh_logit`."""
    return flow_matching_loss(velocity, fresh_logit(x_1, generator), generator=generator)


def likelihood_logit_loss(velocity: Velocity, x_1: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """The loss that bounds the likelihood, of :func:`fresh_logit`: weight t / (1 - t), half of the times near the data.

    Half of the times are uniform, half have a log-uniform ``1 - t`` in [0.001, 1]. Weights are divided by the density
    of the times, so that the expected loss is that of uniform times on [0, 0.999] with the weight t / (1 - t).

    Source: Song et al. 2021 (weight of the likelihood), carried over to the straight path.
    """
    x_1 = fresh_logit(x_1, generator)
    u, pick = torch.rand(2, len(x_1), generator=generator, device=x_1.device, dtype=x_1.dtype)
    rest = torch.where(pick < 0.5, NEAREST**u, NEAREST + (1 - NEAREST) * u)  # 1 - t
    density = 0.5 / (rest * -math.log(NEAREST)) + 0.5 / (1 - NEAREST)
    weight = (1 - rest) / rest / density
    return (weight * flow_matching_loss(velocity, x_1, t=1 - rest, generator=generator, reduction="none")).mean()
