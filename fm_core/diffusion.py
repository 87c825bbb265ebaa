"""Gaussian paths other than the straight one, the four predictions on them, and stochastic sampling.

On a Gaussian path ``x_t = α(t) x_1 + σ(t) x_0`` with noise ``x_0 ~ N(0, I)``, velocity, score, predicted noise and
predicted data are linear functions of one another and of x. A network that was trained on one path can be used on
another by a change of time and scale. Time runs from 0 (noise) to 1 (data), also where papers count backwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fm_core._checks import as_tensor, check_choice, check_generator, check_number, check_type, check_velocity
from fm_core.paths import batch_times, check_times, expand_as
from fm_core.solvers import Times, Velocity, as_steps, evaluate

__all__ = [
    "COSINE",
    "LINEAR",
    "STRAIGHT",
    "GaussianPath",
    "Prediction",
    "on_path",
    "predictions",
    "sample_ddim",
    "sample_sde",
]

KINDS = ("velocity", "score", "noise", "data")
BETA_0, BETA_1 = 0.1, 20.0  # of the linear schedule, per unit of time


@dataclass(frozen=True)
class GaussianPath:
    """Coefficients of ``x_t = α(t) x_1 + σ(t) x_0``; each function takes a tensor of times and returns its shape.

    Attributes:
        name: of the path.
        alpha: α, rising from 0 or nearly 0 to 1.
        sigma: σ, falling to 0.
        d_alpha, d_sigma: their derivatives.
        time: the time at which α / σ has a given value in [0, ∞].
    """

    name: str
    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]
    d_alpha: Callable[[Tensor], Tensor]
    d_sigma: Callable[[Tensor], Tensor]
    time: Callable[[Tensor], Tensor]


STRAIGHT = GaussianPath(
    "straight",
    alpha=lambda t: t,
    sigma=lambda t: 1 - t,
    d_alpha=torch.ones_like,
    d_sigma=lambda t: -torch.ones_like(t),
    time=lambda ratio: 1 / (1 + 1 / ratio),
)
"""``α = t``, ``σ = 1 - t``: the path of this book (Lipman et al. 2023; Liu et al. 2023)."""

COSINE = GaussianPath(
    "cosine",
    alpha=lambda t: (math.pi / 2 * t).sin(),
    sigma=lambda t: (math.pi / 2 * t).cos().clamp(min=0),  # rounding at t = 1
    d_alpha=lambda t: math.pi / 2 * (math.pi / 2 * t).cos(),
    d_sigma=lambda t: -math.pi / 2 * (math.pi / 2 * t).sin(),
    time=lambda ratio: 2 / math.pi * ratio.atan(),
)
"""``α = sin(π t / 2)``, ``σ = cos(π t / 2)``: variance preserving (Nichol, Dhariwal 2021, without their offset)."""


def _linear_log_alpha(t: Tensor) -> Tensor:
    return -(1 - t) * (BETA_0 / 2 + (1 - t) * (BETA_1 - BETA_0) / 4)


def _linear_sigma(t: Tensor) -> Tensor:
    return (-torch.expm1(2 * _linear_log_alpha(t))).sqrt()


def _linear_beta(t: Tensor) -> Tensor:
    return BETA_0 + (1 - t) * (BETA_1 - BETA_0)


def _linear_time(ratio: Tensor) -> Tensor:
    minus_log_alpha = (1 / ratio).square().log1p() / 2  # α² = r² / (1 + r²)
    slope = (BETA_1 - BETA_0) / 4  # minus_log_alpha = s (β_0 / 2 + s slope), s = 1 - t
    root = (BETA_0**2 / 4 + 4 * slope * minus_log_alpha).sqrt()
    return 1 - 2 * minus_log_alpha / (BETA_0 / 2 + root)


LINEAR = GaussianPath(
    "linear",
    alpha=lambda t: _linear_log_alpha(t).exp(),
    sigma=_linear_sigma,
    d_alpha=lambda t: _linear_beta(t) / 2 * _linear_log_alpha(t).exp(),
    d_sigma=lambda t: -_linear_beta(t) / 2 * (2 * _linear_log_alpha(t)).exp() / _linear_sigma(t),
    time=_linear_time,
)
"""``log α = -∫β/2`` with β linear from 20 at the noise to 0.1 at the data: variance preserving, the path of DDPM in
continuous time (Ho et al. 2020; Song et al. 2021, appendix C). At t = 0 there is still α = 0.0066."""


@dataclass(frozen=True)
class Prediction:
    """Four names of one quantity at ``x_t = α x_1 + σ x_0``, each ``(B, ...)``.

    Attributes:
        data: ``E[x_1 | x_t]``.
        noise: ``E[x_0 | x_t]``.
        velocity: ``α' data + σ' noise``.
        score: the gradient of ``log p_t``, ``-noise / σ``; infinite at σ = 0.
    """

    data: Tensor
    noise: Tensor
    velocity: Tensor
    score: Tensor


def predictions(kind: str, value: Tensor, x: Tensor, t: Tensor | float, path: GaussianPath = STRAIGHT) -> Prediction:
    """All four predictions from one of them.

    Args:
        kind: what ``value`` is: ``"velocity"``, ``"score"``, ``"noise"`` or ``"data"``.
        value: the prediction, the shape of ``x``.
        x: states on the path, ``(B, ...)``.
        t: times in [0, 1], a number or ``(B,)``. From the velocity everything but the score is finite at every t on the
            straight path; from noise and score the data cannot be found where α = 0, from the data the noise not where
            σ = 0.
        path: of the states.

    Raises:
        ValueError: an unknown kind, shapes that do not fit, a time outside [0, 1].

    Source: Lipman et al. 2024, section 4.8.
    """
    check_choice("kind", kind, KINDS)
    check_type("path", path, GaussianPath, "a GaussianPath such as STRAIGHT")
    x = as_tensor("x", x, ("B", ...))
    value = as_tensor("value", value, ("B", ...), like=x)
    if value.shape != x.shape:
        raise ValueError(f"value: expected the shape of x, {tuple(x.shape)}, got {tuple(value.shape)}.")
    s = expand_as(check_times(batch_times(t, x)), x)
    a, b, da, db = path.alpha(s), path.sigma(s), path.d_alpha(s), path.d_sigma(s)
    if kind == "velocity":
        det = a * db - b * da  # of x = a data + b noise, v = da data + db noise
        data, noise = (db * x - b * value) / det, (a * value - da * x) / det
    elif kind == "data":
        data, noise = value, (x - a * value) / b
    else:
        noise = value if kind == "noise" else -b * value
        data = (x - b * noise) / a
    return Prediction(data, noise, value if kind == "velocity" else da * data + db * noise, -noise / b)


def on_path(velocity: Velocity, target: GaussianPath, source: GaussianPath = STRAIGHT) -> Velocity:
    """The velocity field on another Gaussian path, from a field on the path that it was trained on.

    Where α/σ agrees, the states of two paths differ by a factor: ``x_target = c x_source``. So the field is evaluated
    at the source's time of that ratio and at ``x / c``, and its predictions make the velocity on the target path. Both
    flows lead from a noise to the same data.

    Args:
        velocity: called as ``velocity(x, t)`` on the source path.
        target: the path wanted.
        source: the path of ``velocity``.

    Returns:
        A function ``velocity(x, t)`` on the target path, with one evaluation per call.

    Source: Karras et al. 2022, appendix B.1 (scale and time as free choices); Lipman et al. 2024, section 4.8.
    """
    check_velocity(velocity)
    for name, path in (("target", target), ("source", source)):
        check_type(name, path, GaussianPath, "a GaussianPath such as COSINE")

    def moved(x: Tensor, t: Tensor | float) -> Tensor:
        s = expand_as(check_times(batch_times(t, x)), x)
        a, b = target.alpha(s), target.sigma(s)
        at = source.time(a / b).clamp(0, 1)
        y = x * (source.alpha(at) + source.sigma(at)) / (a + b)  # both coefficients carry the factor c
        at = at.flatten()
        found = predictions("velocity", evaluate(velocity, y, at), y, at, source)
        return target.d_alpha(s) * found.data + target.d_sigma(s) * found.noise

    return moved


@torch.no_grad()
def sample_ddim(velocity: Velocity, x: Tensor, steps: int | Times = 20, *, path: GaussianPath = COSINE) -> Tensor:
    """DDIM without noise: step to the next time with the predicted data and noise held fixed.

    ``x_{k+1} = α_{k+1} data_k + σ_{k+1} noise_k``

    On any path this is Euler's method on the straight one, at the times of the same α/σ and in the scale α + σ.

    Args:
        velocity: called as ``velocity(x, t)`` on ``path``, for example from :func:`on_path`.
        x: noise, ``(B, ...)``.
        steps: number of equal steps from 0 to 1, or rising times in [0, 1].
        path: of the states.

    Source: Song, Meng, Ermon 2021, equation 12 with σ = 0.
    """
    check_velocity(velocity)
    grid = as_steps(steps).to(x.device, x.dtype)
    for now, later in pairwise(grid):
        found = predictions("velocity", evaluate(velocity, x, now), x, now, path)
        x = path.alpha(later) * found.data + path.sigma(later) * found.noise
    return x


@torch.no_grad()
def sample_sde(
    velocity: Velocity,
    x: Tensor,
    steps: int | Times = 50,
    *,
    strength: float = 1.0,
    path: GaussianPath = STRAIGHT,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw samples with a stochastic differential equation that has the densities of the flow.

    ``dx = (v - λ noise) dt + √(2 λ σ) dW`` with the predicted noise, for any strength λ ≥ 0

    The drift adds ``λ σ`` times the score to the velocity, and the diffusion undoes what that does to the density.
    Steps are Euler-Maruyama; the last one adds no noise.

    Args:
        velocity: called as ``velocity(x, t)`` on ``path``.
        x: noise, ``(B, ...)``.
        steps: number of equal steps from 0 to 1, or rising times in [0, 1].
        strength: λ; 0 is Euler's method for the flow.
        path: of the states.
        generator: random numbers, on the device of ``x``.

    Returns:
        Samples, the shape of ``x``; one evaluation of the velocity per step.

    Raises:
        ValueError: a negative strength, times that do not rise.

    Source: Song et al. 2021, section 4.3, with the diffusion of Ma et al. 2024, section 2.4.
    """
    check_velocity(velocity)
    check_generator(generator)
    strength = check_number("strength", strength, least=0)
    grid = as_steps(steps).to(x.device, x.dtype)
    if grid[-1] < grid[0]:
        raise ValueError(f"steps: expected times that rise, got {float(grid[0]):g} to {float(grid[-1]):g}.")
    for k, (now, later) in enumerate(pairwise(grid)):
        v, h = evaluate(velocity, x, now), later - now
        if strength:
            noise = predictions("velocity", v, x, now, path).noise
            v = v - strength * noise
        x = x + h * v
        if strength and k < len(grid) - 2:
            wiener = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x + (2 * strength * path.sigma(now) * h).sqrt() * wiener
    return x
