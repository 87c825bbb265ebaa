"""Parts that several figures share: estimates with their intervals, grids of panels, borders of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fm_book.metrics.bootstrap import Estimate
from fm_core._checks import check_count, check_number, described
from fm_core.plotting._arrays import check_axes
from fm_core.plotting.images import MAX_INCHES
from fm_core.plotting.style import CARD, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Entry",
    "as_estimate",
    "cell_borders",
    "check_entries",
    "check_texts",
    "check_width",
    "draw_estimate",
    "panel_grid",
    "side_of_zero",
]

Entry: TypeAlias = "Estimate | Mapping[str, Any]"
"""An Estimate, or the entry of a record that :meth:`Estimate.read` reads."""


def as_estimate(entry: Entry) -> Estimate:
    """The entry as an Estimate; ValueError for anything else, and for numbers that are not finite."""
    check_entries("entry", entry, 0)
    return entry if isinstance(entry, Estimate) else Estimate.read(entry)


def check_entries(name: str, value: Any, depth: int) -> None:
    """ValueError unless ``value`` is a mapping, nested ``depth`` deep and nowhere empty, of texts to estimates."""
    if depth == 0:
        if not isinstance(value, Estimate) and not (isinstance(value, Mapping) and "mean" in value):
            raise ValueError(f"{name}: expected an Estimate or its entry in a record, got {described(value)}.")
        entry = vars(value) if isinstance(value, Estimate) else value
        ends = (entry.get(end) for end in ("low", "high"))
        if not isinstance(entry.get("values", ()), list | tuple):
            raise ValueError(f"{name}: expected a list of values, got {described(entry['values'])}.")
        for number in (entry["mean"], *(end for end in ends if end is not None), *entry.get("values", ())):
            check_number(name, number)
        return
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name}: expected a mapping with at least one text as key, got {described(value)}.")
    for key, inner in value.items():
        check_entries(f"{name}[{key!r}]", inner, depth - 1)


def check_texts(name: str, value: Any, kind: type = Mapping) -> None:
    """ValueError unless ``value`` is a mapping, or another kind, that holds texts (as keys), at least one."""
    if not isinstance(value, kind) or isinstance(value, str) or not value or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{name}: expected at least one text, got {described(value)}.")


def check_width(width: float) -> float:
    """``width`` itself; ValueError unless it is a number of inches that a figure can have."""
    return check_number("width", width, above=0, most=MAX_INCHES)


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
    check_axes(ax, color)
    estimate, at = as_estimate(entry), check_number("at", at)

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
        count: number of panels, at most 1,000.
        columns: panels in a row, at most.
        width: of the figure, inches.
        height: of a row, inches.
        options: more of ``plt.subplots``.
    """
    import matplotlib.pyplot as plt

    count = check_count("count", count, most=1000)
    columns = min(check_count("columns", columns, most=100), count)
    width, height = check_width(width), check_number("height", height, above=0, most=MAX_INCHES)
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
