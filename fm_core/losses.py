"""The flow-matching loss: regress the network on the velocity of straight conditional paths.

One function serves training, validation and the chapters. It draws what it is not given, so that validation can pass
fixed noise and times and compare like with like.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fm_core.paths import Coupling, independent_coupling, straight_path

__all__ = ["flow_matching_loss"]

REDUCTIONS = ("mean", "none")


def flow_matching_loss(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x_1: Tensor,
    *,
    x_0: Tensor | None = None,
    t: Tensor | None = None,
    coupling: Coupling = independent_coupling,
    generator: torch.Generator | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Conditional flow-matching loss.

    ``L = E ‖v_θ(x_t, t) - (x_1 - x_0)‖² / D`` with ``t ~ U[0, 1]``, ``x_0 ~ N(0, I)`` and D numbers per item, so that
    losses of different image sizes compare.

    Args:
        velocity: network or any callable ``velocity(x, t)``.
        x_1: data, ``(B, ...)``, float.
        x_0: noise, same shape; drawn if left out.
        t: times in [0, 1], ``(B,)``; drawn if left out.
        coupling: pairs noise with data before the path is taken.
        generator: random numbers for what is drawn, on the device of ``x_1``.
        reduction: ``"mean"`` for one number, ``"none"`` for one number per item, ``(B,)``.

    Returns:
        Loss in squared grey levels of [-1, 1] per squared unit of time. It does not fall to zero: many pairs pass
        through the same ``x_t``, and their velocities differ.

    Raises:
        ValueError: unknown reduction, shapes that do not fit, or a velocity of another shape than ``x_1``.

    Source: Lipman et al. 2023, equation 9 (conditional flow matching) with the path of equation 20 at σ_min = 0.
    Explained in the chapter *The flow-matching objective*; used in *Training and tracking*.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}: choose 'mean' or 'none'.")
    if x_0 is None:
        x_0 = torch.randn(x_1.shape, generator=generator, device=x_1.device, dtype=x_1.dtype)
    if t is None:
        t = torch.rand(len(x_1), generator=generator, device=x_1.device, dtype=x_1.dtype)
    path = straight_path(*coupling(x_0, x_1), t)
    v = velocity(path.x_t, path.t)
    if v.shape != path.dx_t.shape:
        raise ValueError(
            f"velocity(x, t) gave shape {tuple(v.shape)} for x of shape {tuple(path.x_t.shape)}; a velocity has the "
            "shape of its state."
        )
    error = (v - path.dx_t).square()  # under autocast v is bf16 and dx_t float32: the difference is float32
    return error.mean() if reduction == "mean" else error.flatten(1).mean(dim=1)
