"""Log-density of a flow by the instantaneous change of variables, and bits per dimension of images.

``log p_1(x_1) = log N(x(0); 0, I) - ∫_0^1 ∇·v(x(t), t) dt`` along the solution that ends in x_1: one ODE for the state
and the divergence together. The divergence is exact (one vector-Jacobian product per dimension) or Hutchinson's
estimate; its probes are fixed along a trajectory.

An image has 256 levels and no density. Noise that keeps every pixel in the bin of its level (dequantisation) gives it
one, and the mean log-density bounds the probability of the levels from below; how tightly depends on the noise.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_core._checks import as_tensor, check_choice, check_count, check_generator, check_number, check_velocity
from fm_core.data import dequantize, grey_levels
from fm_core.solvers import Tableau, Times, Velocity, as_grid, as_steps, evaluate, integrate

__all__ = [
    "BitsPerDimension",
    "LogDensity",
    "bits_per_dimension",
    "divergence",
    "log_density",
    "sample_with_log_density",
    "to_logit",
]

DEQUANTIZATIONS = ("uniform", "truncated-normal", "logit")
LEVEL = 1 / 127.5  # from level to level
UNIFORM_BITS = 8.0  # per dimension, of an image of 256 levels without any model
LOGIT_EDGE, LOGIT_SCALE = 1e-6, 4.0  # distance from 0 and 1, as FFJORD; what brings the logit to order 1
PROBE_KINDS = ("rademacher", "gaussian")
MAX_PROBES = 10_000  # and draws


@dataclass(frozen=True, eq=False)
class LogDensity:
    """Log-densities of a batch, and where its samples come from.

    Attributes:
        x: the samples, ``(B, ...)``.
        log_density: ``log p(x)`` in nats, ``(B,)``, in the precision of x.
        standard_error: of ``log_density``, due to the random probes alone, ``(B,)``; 0 for the exact divergence, NaN
            for a single probe, which cannot tell.
        x_0: the noise that flows to x, the shape of x.
        nfe: evaluations of the velocity, each with one vector-Jacobian product per probe (exact: per dimension).
    """

    x: Tensor
    log_density: Tensor
    standard_error: Tensor
    x_0: Tensor
    nfe: int


@dataclass(frozen=True, eq=False)
class BitsPerDimension:
    """What a flow needs to name the levels of images.

    Attributes:
        bits: upper bound on ``-log2 P(image) / D``, ``(B,)``; mean over the draws.
        standard_error: of ``bits``, ``(B,)``: the scatter of the draws, probes included; of a single draw that of its
            probes alone, NaN for a single one.
        nfe: evaluations of the velocity per image, all draws together.
    """

    bits: Tensor
    standard_error: Tensor
    nfe: int


def divergence(velocity: Velocity, x: Tensor, t: Tensor, probes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Velocity and its divergence, exact or seen through probes.

    ``∇·v = Σ_i ∂v_i/∂x_i``; for a probe ε with ``E[ε εᵀ] = I``, ``E[εᵀ (∂v/∂x) ε] = ∇·v`` (Hutchinson)

    Args:
        velocity: called as ``velocity(x, t)``; differentiable in x by autograd. Samples of a batch must not see one
            another, as in batch normalisation.
        x: states, ``(B, ...)``, floating point.
        t: time, a scalar tensor or ``(B,)``.
        probes: ``(P, B, ...)``; the exact trace if left out, at the cost of one vector-Jacobian product per dimension.

    Returns:
        The velocity, the shape of x, and the divergence seen through each probe, ``(P, B)``; exact: ``(1, B)``. Both
        without gradients.

    Raises:
        ValueError: probes of another shape; a velocity that autograd cannot follow to x.

    Source: Grathwohl et al. 2019, equation 7; Hutchinson 1989. Explained in the chapter *How likely is a digit?*.
    """
    check_velocity(velocity)
    x = as_tensor("x", x, ("B", ...), least=0)
    if not isinstance(t, Tensor):
        as_tensor("t", t, finite=True)
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if probes is not None:
        probes = as_tensor("probes", probes, ("P", *x.shape), like=x, cure="Draw them as torch.randn(P, *x.shape).")
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = evaluate(velocity, x, t)
    if not v.requires_grad:
        raise ValueError(
            "velocity(x, t): expected a value that autograd can differentiate in x, got one without graph. Remove "
            "no_grad(), detach() and inference mode from it."
        )

    def pulled(vector: Tensor) -> Tensor:  # vᵀ J, (B, ...)
        (row,) = torch.autograd.grad(v, x, vector, retain_graph=True)
        return row

    if probes is not None:
        return v.detach(), torch.stack([(pulled(e) * e).flatten(1).sum(dim=1) for e in probes])
    trace, unit = v.new_zeros(len(x)), v.new_zeros(v.shape).flatten(1)  # (B,), (B, D)
    for i in range(unit.shape[1]):
        unit[:, i] = 1
        trace += pulled(unit.view(v.shape)).flatten(1)[:, i]
        unit[:, i] = 0
    return v.detach(), trace[None]


def log_density(
    velocity: Velocity,
    x: Tensor,
    t: Times = (0.0, 1.0),
    *,
    probes: int | None = None,
    kind: str = "rademacher",
    method: str | Tableau = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    generator: torch.Generator | None = None,
    progress: bool | None = False,
) -> LogDensity:
    """Log-density of samples under the flow of a velocity field that starts from standard normal noise.

    ``log p_1(x_1) = log N(x(0); 0, I) - ∫_0^1 ∇·v(x(t), t) dt`` along the path that ends in x_1

    Args:
        velocity: called as ``velocity(x, t)``, as in :func:`divergence`; networks are best put in eval mode first. Its
            parameters get no gradients.
        x: samples, ``(B, ...)``, floating point; left as they are.
        t: times of a sampler, rising from 0, at most to 1, walked backwards. A fixed-step method takes one step from
            each to the next; ``"dopri5"`` needs the two ends only. An end before 1 asks for the density at that time.
        probes: random vectors per sample for Hutchinson's estimate, at most 10,000; the exact trace if left out.
        kind: ``"rademacher"`` (signs, the smaller variance) or ``"gaussian"``.
        method: as in :func:`fm_core.solve`. Coarse fixed steps give values that no density can have: what is
            integrated is then not the volume change of the steps that were taken.
        rtol, atol: relative and absolute error per step of ``"dopri5"``, in the state and in the divergences alike. All
            samples of a batch share the steps.
        generator: random numbers, on the device of ``x``.
        progress: as in :func:`fm_core.solve`.

    Raises:
        ValueError: times that do not rise from 0 or pass 1; samples with NaN or infinity; a number of probes below 1;
            an unknown kind; what :func:`divergence` and :func:`fm_core.solve` refuse.

    Source: Chen et al. 2018, theorem 1; Grathwohl et al. 2019, algorithm 1. Explained in the chapter *How likely is a
    digit?*.
    """
    x = as_tensor("x", x, ("B", ...), finite=True).detach()
    return _augmented(
        velocity, x, _from_0_to_1("t", as_grid("t", t)).flip(0), probes, kind, generator, method, rtol, atol, progress
    )


def sample_with_log_density(
    velocity: Velocity,
    x_0: Tensor,
    steps: int | Times = (0.0, 1.0),
    *,
    probes: int | None = None,
    kind: str = "rademacher",
    method: str | Tableau = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    generator: torch.Generator | None = None,
    progress: bool | None = False,
) -> LogDensity:
    """Carry standard normal noise to samples and integrate their log-density along, in one pass.

    ``log p_1(x(1)) = log N(x_0; 0, I) - ∫_0^1 ∇·v(x(t), t) dt`` along the path that starts in x_0

    Args:
        velocity: as in :func:`log_density`.
        x_0: noise, ``(B, ...)``, floating point.
        steps: number of equal steps from t = 0 to t = 1, or times that rise from 0 within [0, 1]. ``"dopri5"`` needs
            the two ends only.
        probes, kind, method, rtol, atol, generator, progress: as in :func:`log_density`.

    Returns:
        ``.x`` holds the samples, ``.log_density`` their log-densities in nats, ``(B,)``.

    Raises:
        ValueError: what :func:`log_density` refuses.

    Source: Chen et al. 2018, theorem 1. Explained in the chapter *How likely is a digit?*.
    """
    x_0 = as_tensor("x_0", x_0, ("B", ...), finite=True).detach()
    t = _from_0_to_1("steps", as_steps(steps))
    return _augmented(velocity, x_0, t, probes, kind, generator, method, rtol, atol, progress)


def _from_0_to_1(name: str, grid: Tensor) -> Tensor:
    """The grid itself; ValueError unless it rises from 0 and does not pass 1."""
    if grid[0] != 0 or not 0 < grid[-1] <= 1:
        raise ValueError(
            f"{name}: expected times that rise from 0 (noise) to 1 (data) at most, as uniform_grid(n) makes them, got "
            f"{grid[0]:g} to {grid[-1]:g}."
        )
    return grid


def _augmented(
    velocity: Velocity, x: Tensor, t: Tensor, probes: int | None, kind: str, generator: torch.Generator | None,
    method: str | Tableau, rtol: float, atol: float, progress: bool | None,
) -> LogDensity:  # fmt: skip
    """Integrate state and divergence from x along the grid t, which starts or ends at the noise, t = 0."""
    check_velocity(velocity)
    check_choice("kind", kind, PROBE_KINDS)
    check_generator(generator)
    noise = None if probes is None else _probes(x, check_count("probes", probes, most=MAX_PROBES), kind, generator)
    dimension = math.prod(x.shape[1:])
    width = 1 if noise is None else len(noise)

    def augmented(state: Tensor, s: Tensor) -> Tensor:  # (B, D + P): the sample, then the integral of each probe
        v, spread = divergence(velocity, state[:, :dimension].reshape(x.shape), s, noise)
        return torch.cat([v.flatten(1), spread.T], dim=1)

    start = torch.cat([x.flatten(1), x.new_zeros(len(x), width)], dim=1)
    end, nfe = integrate(augmented, start, t, method=method, rtol=rtol, atol=atol, progress=progress)
    state, gathered = end.split([dimension, width], dim=1)
    backwards = bool(t[0] > t[-1])
    gathered = gathered if backwards else -gathered  # -∫_0^1 ∇·v dt
    x_0, x_1 = (state.reshape(x.shape), x) if backwards else (x, state.reshape(x.shape))
    normal = -(x_0.flatten(1).square().sum(dim=1) + dimension * math.log(2 * math.pi)) / 2
    error = torch.zeros_like(normal)
    if noise is not None:
        error = gathered.std(dim=1) / width**0.5 if width > 1 else error.fill_(math.nan)
    return LogDensity(x_1, normal + gathered.mean(dim=1), error, x_0, nfe)


def bits_per_dimension(
    velocity: Velocity,
    images: Tensor,
    t: Times = (0.0, 1.0),
    *,
    dequantization: str = "uniform",
    tau: float = 1.5,
    draws: int = 1,
    probes: int | None = 1,
    generator: torch.Generator | None = None,
    **options: Any,
) -> BitsPerDimension:
    """Bits per dimension of images with 256 levels: an upper bound for the flow's probability of the levels.

    ``-log P(k) ≤ E_q[log q(y | k) - log p(y)]``, y in the bin of the level k

    The step is Jensen's inequality for ``P(k) = ∫ p(y) dy`` over the image's bin. No image can have less than 0 bits;
    a mean below 0 tells of too coarse a solver.

    Args:
        velocity: as in :func:`log_density`.
        images: ``(B, ...)``, values ``k / 127.5 - 1`` of levels k from 0 to 255.
        t: as in :func:`log_density`, from 0 to 1.
        dequantization: how q fills the bins.

            - ``"uniform"``: :func:`fm_core.dequantize`; the density is read at t = 1. For networks that were trained on
              uniformly dequantised images.
            - ``"truncated-normal"``: ``y = k / 127.5 - 1 + σ ε``, ε standard normal, cut off at the borders of the bin;
              the bins of black and white are open. The density of y is that of ``x_t / t`` at the time t whose
              noise is σ, ``σ = (1 - t) / t``. For networks that were trained on the levels themselves: they know
              images with exactly this noise, and nothing at t = 1.
            - ``"logit"``: uniform, then :func:`to_logit`. For networks that were trained so.
        tau: half the width of a bin over σ, for ``"truncated-normal"``; 1.5 ends at t = 0.9974.
        draws: how often each image is spread over its bin, each time with probes of its own.
        probes: as in :func:`log_density`.
        generator: random numbers, on the device of ``images``.
        options: of :func:`log_density`: ``method``, ``rtol``, ``atol``, ``kind``, ``progress``.

    Raises:
        ValueError: fewer than one draw; images outside [-1, 1], in [0, 1], or off the 256 levels; an unknown
            dequantisation; tau outside [0.1, 10]; times that do not end at 1; what :func:`log_density` refuses.

    Warns:
        RuntimeWarning: images that need more than 8 bits. Any image has 8 without a model; the reverse integration of
            these diverged, or they are far from the training images.

    Source: Theis, van den Oord, Bethge 2016, section 3.1; Zheng et al. 2023 (truncated normal). Explained in the
    chapter *How likely is a digit?*.
    """
    draws = check_count("draws", draws, most=MAX_PROBES)
    check_choice("dequantization", dequantization, DEQUANTIZATIONS)
    tau = check_number("tau", tau, least=0.1, most=10)
    grid = _from_0_to_1("t", as_grid("t", t))
    if grid[-1] != 1:
        raise ValueError(
            f"t: expected times that end at 1, got an end at {float(grid[-1]):g}. tau sets an earlier end."
        )
    images = _on_levels(as_tensor("images", images, ("B", ...)))
    if dequantization == "truncated-normal":
        grid = grid / (1 + LEVEL / (2 * tau))
    nats_to_bits = 1 / (math.prod(images.shape[1:]) * math.log(2))
    found, bits = [], []
    for _ in range(draws):
        x, cost = _dequantized(images, dequantization, tau, generator)
        found.append(log_density(velocity, x, grid, probes=probes, generator=generator, **options))
        bits.append((cost - found[-1].log_density) * nats_to_bits)
    stacked = torch.stack(bits)  # (draws, B)
    error = stacked.std(dim=0) / draws**0.5 if draws > 1 else found[0].standard_error * nats_to_bits
    mean = stacked.mean(dim=0)
    if diverged := int((~(mean <= UNIFORM_BITS)).sum()):
        warnings.warn(
            f"{diverged} of {len(mean)} images: expected at most 8 bits per dimension, got up to {mean.max():.3g}. "
            "Lower rtol and atol; if that does not help, the flow diverges backwards from them.",
            RuntimeWarning,
            stacklevel=2,
        )
    return BitsPerDimension(mean, error, sum(f.nfe for f in found))


def to_logit(y: Tensor) -> tuple[Tensor, Tensor]:
    """Dequantised pixels through a logit, which gives the bins of black and white as much room as all others together.

    ``z = logit(α + (1 - 2α) s) / 4``, ``s = (y + 1) / 2``; α = 1e-6 keeps z finite

    Args:
        y: pixels in [-1, 1), ``(B, ...)``.

    Returns:
        z, the shape of y, and ``log |dz/dy|`` of all pixels of an image together, ``(B,)``.

    Raises:
        ValueError: values outside [-1, 1].

    Source: Dinh et al. 2017, section 4.1; Grathwohl et al. 2019 use α = 1e-6 on MNIST.
    """
    y = as_tensor("y", y, ("B", ...), finite=True)
    if y.numel() and y.abs().max() > 1:
        raise ValueError(f"y: expected pixels in [-1, 1], got up to {float(y.abs().max()):g}. Use fm_core.dequantize.")
    s = LOGIT_EDGE + (1 - 2 * LOGIT_EDGE) * (y.double() + 1) / 2
    slope = math.log((1 - 2 * LOGIT_EDGE) / (2 * LOGIT_SCALE)) - s.log() - (1 - s).log()
    return (s.logit() / LOGIT_SCALE).to(y.dtype), slope.flatten(1).sum(dim=1).to(y.dtype)


def _on_levels(images: Tensor) -> Tensor:
    """The images; ValueError unless each pixel is one of the 256 levels."""
    off = ((images + 1) / LEVEL - grey_levels(images)).abs()
    if off.numel() and off.max() > 0.01:
        raise ValueError(
            f"images: expected pixels k / 127.5 - 1 with k = 0 to 255, got one {float(off.max()):.2g} of a level away. "
            "Round samples: ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1."
        )
    return images


def _dequantized(images: Tensor, how: str, tau: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """States x of the flow, and ``log q(y | k) - log |dx/dy|`` of each image in nats, ``(B,)``."""
    dimension = math.prod(images.shape[1:])
    if how != "truncated-normal":
        y = dequantize(images, generator)
        x, slope = to_logit(y) if how == "logit" else (y, y.new_zeros(len(y)))
        return x, dimension * math.log(128) - slope
    check_generator(generator)
    sigma = LEVEL / (2 * tau)
    end = 1 / (1 + sigma)
    level = grey_levels(images).double()
    u = torch.rand(images.shape, generator=generator, device=images.device, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    border = torch.full_like(level, tau)
    low = torch.special.ndtr(-border) * (level > 0)  # the bin of black has no lower border
    high = torch.where(level < 255, torch.special.ndtr(border), 1.0)
    noise = torch.special.ndtri(low + u * (high - low))
    log_q = -noise.square() / 2 - math.log(sigma * math.sqrt(2 * math.pi)) - (high - low).log()
    x = end * (level * LEVEL - 1 + sigma * noise)
    return x.to(images.dtype), (log_q.flatten(1).sum(dim=1) - dimension * math.log(end)).to(images.dtype)


def _probes(x: Tensor, count: int, kind: str, generator: torch.Generator | None) -> Tensor:
    """Random vectors with uncorrelated entries of variance 1, ``(P, B, ...)``."""
    options = {"generator": generator, "device": x.device}
    if kind == "gaussian":
        return torch.randn(count, *x.shape, dtype=x.dtype, **options)
    return torch.randint(0, 2, (count, *x.shape), **options).to(x.dtype).mul_(2).sub_(1)
