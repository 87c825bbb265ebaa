"""Widths that give one network the size of another: parameters, and operations per image where asked for.

Widths are whole numbers, so a match is searched: every level may move a little around a common factor, and of all
networks that meet the tolerance the one whose proportions are nearest to the original's is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from fm_core.models import UNet, count_flops, count_parameters

__all__ = ["matched_widths"]


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
        off = abs(count_parameters(model) / target - 1)
        if target_flops is not None and off <= tolerance:
            off = max(off, abs(count_flops(model) / target_flops - 1))
        return off

    def departure(candidate: tuple[int, ...]) -> float:
        factors = [c / w for c, w in zip(candidate, widths, strict=True)]
        mean = sum(factors) / len(factors)
        return sum((f / mean - 1) ** 2 for f in factors)

    with torch.device("meta"):
        factor = (
            target / count_parameters(build(tuple(widths)))
        ) ** 0.5  # parameters grow with the square of the width
    levels = []
    for w in widths:
        middle, far = factor * w, max(reach * factor * w, step)
        low, high = max(1, round((middle - far) / step)), round((middle + far) / step)
        levels.append([k * step for k in range(low, high + 1)])
    candidates = sorted(itertools.product(*levels), key=lambda c: (departure(c), c))
    found = next((c for c in candidates if miss(c) <= tolerance), None)
    if found is None:
        raise ValueError(
            f"target: expected {target:,} parameters within {tolerance:.1%} at widths near {factor:.2f} × "
            f"{tuple(widths)}, got no such widths. Raise reach or tolerance."
        )
    return found
