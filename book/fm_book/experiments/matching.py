"""Widths that give one network the size of another: parameters, and operations per image where asked for.

Widths are whole numbers, so a match is searched: every level may move a little around a common factor, and of all
networks that meet the tolerance the one whose proportions are nearest to the original's is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fm_core.models import UNet

__all__ = ["flops", "matched_widths", "parameters"]


def parameters(model: nn.Module) -> int:
    """Learned numbers of a network."""
    return sum(p.numel() for p in model.parameters())


def flops(model: UNet, size: int = 28) -> int:
    """Operations of one forward pass of one image, counted as :func:`fm_core.summary` does.

    Args:
        model: a network, on the device ``"meta"`` if nothing shall be computed.
        size: side of the image, in pixels.
    """
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, model.channels, size, size, device=device), torch.zeros(1, device=device))
    return counter.get_total_flops()


def matched_widths(
    build: Callable[[tuple[int, ...]], UNet],
    widths: Sequence[int],
    target: int,
    *,
    target_flops: int | None = None,
    step: int = 1,
    reach: float = 0.08,
    tolerance: float = 0.02,
) -> tuple[int, ...]:
    """Widths near a multiple of ``widths`` at which a network has ``target`` parameters.

    Args:
        build: makes the network from widths.
        widths: proportions to keep, from full resolution down.
        target: parameters to meet.
        target_flops: operations per image to meet as well.
        step: widths are multiples of it.
        reach: how far each level may move from the common factor, as a share of its width.
        tolerance: largest relative difference from the targets.

    Returns:
        The widths, those with the smallest squared relative departure from one common factor.

    Raises:
        ValueError: no network in the family meets the targets.
    """

    def miss(candidate: tuple[int, ...]) -> float:
        with torch.device("meta"):
            model = build(candidate)
        off = abs(parameters(model) / target - 1)
        if target_flops is not None and off <= tolerance:
            off = max(off, abs(flops(model) / target_flops - 1))
        return off

    def departure(candidate: tuple[int, ...]) -> float:
        factors = [c / w for c, w in zip(candidate, widths, strict=True)]
        mean = sum(factors) / len(factors)
        return sum((f / mean - 1) ** 2 for f in factors)

    with torch.device("meta"):
        factor = (target / parameters(build(tuple(widths)))) ** 0.5  # parameters grow with the square of the width
    levels = []
    for w in widths:
        middle, far = factor * w, max(reach * factor * w, step)
        low, high = max(1, round((middle - far) / step)), round((middle + far) / step)
        levels.append([k * step for k in range(low, high + 1)])
    candidates = sorted(itertools.product(*levels), key=lambda c: (departure(c), c))
    found = next((c for c in candidates if miss(c) <= tolerance), None)
    if found is None:
        raise ValueError(
            f"no widths near {factor:.2f} × {tuple(widths)} meet {target:,} parameters within {tolerance:.1%}; "
            "raise reach or tolerance."
        )
    return found
