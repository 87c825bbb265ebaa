"""Classifier-free guidance: one velocity field from a network's fields with and without a label."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fm_core._checks import check_count, check_label_range, check_labels, check_number, check_velocity, described
from fm_core.paths import batch_times, expand_as
from fm_core.solvers import Velocity

__all__ = ["guided"]


def guided(
    model: Callable[..., Tensor],
    y: Tensor | Sequence[int] | int,
    scale: float = 2.0,
    *,
    zero_star: bool = False,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Velocity:
    """A velocity field that asks for labels: ``v = v_∅ + w (v_y - v_∅)``.

    ``w = 0`` is the field without a label, ``w = 1`` the field of the label; above 1 the samples move away from what
    the other labels would give. Each call makes one doubled batch, that is two evaluations per sample.

    Args:
        model: called as ``model(x, t, y)``, with an attribute ``classes`` whose value is the null label.
        y: labels from 0 to ``classes - 1``, one for all samples or one per sample, ``(B,)``.
        scale: w, finite; usual are 1 to 5.
        zero_star: CFG-Zero*: ``v_∅`` is scaled by its projection on ``v_y``, sample by sample, and the velocity at
            t = 0 is zero, so that the first step of a solver does nothing.
        interval: times (low, high) with ``low <= t <= high`` that are guided; at others w is 1.

    Returns:
        A function ``velocity(x, t)``.

    Raises:
        ValueError: a model without classes, labels out of range or of another type, a scale that is not finite, an
            interval that is none. When called: a batch that the labels do not fit.

    Source: Ho, Salimans 2022; Fan et al. 2025 (CFG-Zero*); Kynkäänniemi et al. 2024 (interval). Explained in the
    chapter *The digit you ask for*.
    """
    check_velocity(model)
    if getattr(model, "classes", None) is None:
        raise ValueError(
            f"model: expected one with classes, called as model(x, t, y), got {described(model)} without. "
            'Take load_pretrained("residual-labels"), or train ResidualUNet(classes=10).'
        )
    classes, scale = check_count("model.classes", model.classes), check_number("scale", scale)  # type: ignore[attr-defined]
    labels = check_labels("y", y, y.numel() if isinstance(y, Tensor) else len(y) if isinstance(y, Sequence) else 1)
    check_label_range("y", labels, classes)
    ends = interval if isinstance(interval, Sequence) and len(interval) == 2 else (math.nan, math.nan)
    low, high = (check_number("interval", end, least=0, most=1) for end in ends)

    def velocity(x: Tensor, t: Tensor | float) -> Tensor:
        s = batch_times(t, x)
        given = check_labels("y", labels, len(x)).to(x.device).expand(len(x))
        both = torch.cat([given, torch.full_like(given, classes)])
        v, free = model(torch.cat([x, x]), s if len(s) == 1 else torch.cat([s, s]), both).chunk(2)
        s = expand_as(s, x)
        if zero_star:
            overlap, norm = (a.flatten(1).sum(dim=1) for a in (v * free, free.square()))
            free = free * expand_as(overlap / norm.clamp(min=torch.finfo(x.dtype).tiny), x)
        w = torch.where((s >= low) & (s <= high), scale, 1.0).to(x.dtype)
        v = torch.lerp(free, v, w.expand_as(v))
        return torch.where(s == 0, 0.0, v) if zero_star else v

    return velocity
