"""The flow-matching loss, and the validation loss: the same on fixed draws of noise and time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fm_core._checks import (
    as_tensor,
    check_choice,
    check_count,
    check_generator,
    check_seed,
    check_type,
    check_velocity,
    described,
)
from fm_core.paths import Coupling, interpolate, straight_path

__all__ = ["flow_matching_loss", "validation_loss"]

VALIDATION_SEED = 1234


def flow_matching_loss(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x_1: Tensor,
    *,
    x_0: Tensor | None = None,
    t: Tensor | None = None,
    coupling: Coupling | None = None,
    generator: torch.Generator | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Conditional flow-matching loss.

    ``L = E ‖v_θ(x_t, t) - (x_1 - x_0)‖² / D`` with ``t ~ U[0, 1]``, ``x_0 ~ N(0, I)`` and D numbers per item

    Args:
        velocity: network or any callable ``velocity(x, t)``.
        x_1: data, ``(B, ...)``, float, B at least 1.
        x_0: noise, same shape; drawn if left out.
        t: times in [0, 1], ``(B,)``; drawn if left out.
        coupling: pairs noise with data before the path is taken; independent pairs if left out.
        generator: random numbers for what is drawn, on the device of ``x_1``.
        reduction: ``"mean"``, or ``"none"`` for one number per item, ``(B,)``.

    Returns:
        Loss in squared units of ``x`` per squared unit of time. Its minimum is the irreducible loss, not zero: many
        pairs pass through the same ``x_t`` with different velocities.

    Raises:
        ValueError: unknown reduction, no data, shapes that do not match, or a velocity of another shape than ``x_1``.
            NaN passes through: training looks at the loss.

    Source: Lipman et al. 2023, equation 9 with the path of equation 20 at σ_min = 0. Explained in the chapter *The
    flow-matching objective*.
    """
    check_velocity(velocity)
    check_choice("reduction", reduction, ("mean", "none"))
    check_generator(generator)
    check_type("coupling", coupling, Callable | None, "a function coupling(x_0, x_1) or None")
    x_1 = as_tensor("x_1", x_1, ("B", ...))
    if x_0 is not None:
        x_0 = as_tensor("x_0", x_0, ("B", ...), like=x_1)
    else:
        x_0 = torch.randn(x_1.shape, generator=generator, device=x_1.device, dtype=x_1.dtype)
    path_of = straight_path if t is not None else interpolate  # times that are drawn here need no check
    if t is None:
        t = torch.rand(len(x_1), generator=generator, device=x_1.device, dtype=x_1.dtype)
    if coupling is not None:
        x_0, x_1 = coupling(x_0, x_1)
    path = path_of(x_0, x_1, t)
    v = velocity(path.x_t, path.t)
    if not isinstance(v, Tensor) or v.shape != path.dx_t.shape:
        raise ValueError(f"velocity(x, t): expected the shape of x, {tuple(path.x_t.shape)}, got {described(v)}.")
    error = (v - path.dx_t).square()  # under autocast v is bfloat16 and dx_t float32: the difference is float32
    return error.mean() if reduction == "mean" else error.flatten(1).mean(dim=1)


@torch.no_grad()
def validation_loss(
    velocity: Callable[..., Tensor],
    x_1: Tensor,
    *,
    y: Tensor | None = None,
    batch_size: int = 256,
    seed: int = VALIDATION_SEED,
) -> float:
    """Flow-matching loss on fixed draws: one noise and one time per item, the same for every network and device.

    Times are spread evenly over [0, 1], which has less variance than random times.

    Args:
        velocity: network or any callable ``velocity(x, t)``.
        x_1: held-out data, ``(N, ...)``, N at least 1.
        y: labels, ``(N,)``; given as third argument, ``velocity(x, t, y)``.
        batch_size: items per forward pass.
        seed: of noise and order of the times.

    Raises:
        ValueError: no data, or data with NaN or infinity.
    """
    check_velocity(velocity)
    x_1, batch_size = as_tensor("x_1", x_1, ("N", ...), finite=True), check_count("batch_size", batch_size, most=2**31)
    generator = torch.Generator().manual_seed(check_seed("seed", seed))  # on the CPU: the same draws on every device
    x_0 = torch.randn(x_1.shape, generator=generator).to(x_1.device)
    order = torch.randperm(len(x_1), generator=generator)
    t = ((order + 0.5) / len(x_1)).to(x_1)
    total = torch.zeros((), device=x_1.device)
    for rows in torch.arange(len(x_1)).split(batch_size):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        at_labels = velocity if y is None else partial(velocity, y=y[part])
        total += flow_matching_loss(at_labels, x_1[part], x_0=x_0[part], t=t[part], reduction="none").sum()
    return total.item() / len(x_1)
