"""Parts that several figures share: estimates with their intervals, grids of panels, borders of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fm_book.metrics.bootstrap import Estimate
from fm_core.plotting.style import CARD, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Entry", "as_estimate", "cell_borders", "draw_estimate", "panel_grid", "side_of_zero"]

Entry: TypeAlias = "Estimate | Mapping[str, Any]"
"""An Estimate, or the entry of a record that :meth:`Estimate.read` reads."""


def as_estimate(entry: Entry) -> Estimate:
    """The entry as an Estimate."""
    return entry if isinstance(entry, Estimate) else Estimate.read(entry)


def side_of_zero(entry: Entry) -> int:
    """1 or -1 where the interval lies above or below zero; 0 where it contains zero, or there is none."""
    estimate = as_estimate(entry)
    if estimate.low is None or estimate.high is None:
        return 0
    return int(estimate.low > 0) - int(estimate.high < 0)


def draw_estimate(
    ax: Axes,
    entry: Entry,
    at: float,
    *,
    seeds_at: float | None = None,
    vertical: bool = False,
    interval: bool = True,
    color: str = INK,
    marker: str = "o",
    hollow: bool = False,
) -> None:
    """Draw the mean as a marker, its interval as a bar and each seed as a tick beside it.

    Args:
        ax: to draw on.
        entry: interval and seeds are left out where there is none, and where there is one seed.
        at: position on the other axis.
        seeds_at: position of the seeds' ticks; default: ``at``.
        vertical: whether the values lie on the y axis.
        interval: draw the bar.
        color: of all parts.
        marker: of the mean.
        hollow: draw only the outline of the marker.
    """
    estimate = as_estimate(entry)

    def draw(values: list[float], position: float, **style: Any) -> None:
        axes = ([position] * len(values), values)
        ax.plot(*(axes if vertical else axes[::-1]), color=color, **style)

    if interval and estimate.low is not None and estimate.high is not None:
        draw([estimate.low, estimate.high], at, linestyle="-", linewidth=1.8, solid_capstyle="butt", alpha=0.8)
    if len(estimate.values) > 1:
        tick = {"marker": "_" if vertical else "|", "markersize": 6, "markeredgewidth": 1.2, "alpha": 0.8}
        draw(list(estimate.values), at if seeds_at is None else seeds_at, linestyle="none", **tick)
    fill = CARD if hollow else color
    draw([estimate.mean], at, linestyle="none", marker=marker, markersize=6, markerfacecolor=fill, zorder=3)


def panel_grid(count: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels in rows of at most ``columns``, and its axes.

    Args:
        count: number of panels.
        columns: panels in a row, at most.
        width: of the figure, inches.
        height: of a row, inches.
        options: more of ``plt.subplots``.
    """
    import matplotlib.pyplot as plt

    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, rows * height), squeeze=False, layout="constrained", **options
    )
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, list(axes.flat[:count])


def cell_borders(ax: Axes, rows: int, columns: int) -> None:
    """White lines between the cells of a table drawn with ``imshow``, and no frame."""
    ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    ax.grid(visible=False)
    ax.grid(visible=True, which="minor", color="white", linewidth=2)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)
