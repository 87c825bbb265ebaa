"""Figures of metrics on sets of images: a heatmap of deviations from real digits, and panels of intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fm_book.figures.common import (
    Entry,
    cell_borders,
    check_entries,
    check_texts,
    check_width,
    draw_estimate,
    panel_grid,
)
from fm_core._checks import check_count, check_number, described
from fm_core.plotting._arrays import ArrayLike, as_array
from fm_core.plotting.style import INK, PALE, QUIET, VERMILION, draws_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["interval_panels", "metric_heatmap"]

STEPS = (4, 10, 30, 100)  # standard deviations at which the colour changes; 4 of 20 draws: by chance 1 in 1,000


@draws_figure
def metric_heatmap(
    values: ArrayLike,
    deviations: ArrayLike,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    digits: int | Sequence[int] = 2,
    width: float = 7.4,
) -> Figure:
    """A table of metric values, coloured by their deviation from real digits.

    Args:
        values: ``(R, C)``, written into the cells.
        deviations: ``(R, C)``, in standard deviations of real digits; worse than they are above 0, better below.
        rows: names of the sets.
        columns: names of the metrics.
        digits: decimals of values below 10, for all columns or one number each; larger values get fewer.
        width: of the figure, inches.

    Raises:
        ValueError: shapes that do not fit together.

    Explained in the chapter *Metrics and their blind spots*.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import BoundaryNorm

    values, deviations = as_array(values, "values"), as_array(deviations, "deviations")
    check_texts("rows", rows, Sequence)
    check_texts("columns", columns, Sequence)
    several = isinstance(digits, list | tuple)
    decimals = [check_count("digits", d, least=0, most=10) for d in (digits if several else [digits] * len(columns))]
    width = check_width(width)
    shape = (len(rows), len(columns))
    if values.shape != shape or deviations.shape != shape or len(decimals) != len(columns):
        raise ValueError(
            f"values, deviations, digits: expected {shape}, {shape} and {len(columns)} for these rows and columns, got "
            f"{values.shape}, {deviations.shape} and {len(decimals)}."
        )
    edges = [-1e9, *(-s for s in reversed(STEPS)), *STEPS, 1e9]
    figure, ax = plt.subplots(figsize=(width, 1.15 + 0.38 * len(rows)))
    image = ax.imshow(np.clip(deviations, -1e8, 1e8), cmap="PuOr_r", norm=BoundaryNorm(edges, 256), aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        size = abs(deviations[i, j])
        color = "white" if size >= STEPS[-2] else INK if size >= STEPS[0] else QUIET
        places = max(0, decimals[j] - max(0, int(np.floor(np.log10(max(abs(value), 1))))))
        weight = "bold" if size >= STEPS[0] else "normal"
        ax.text(j, i, f"{value:.{places}f}", ha="center", va="center", color=color, weight=weight)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    cell_borders(ax, len(rows), len(columns))
    bar = figure.colorbar(image, ax=ax, orientation="horizontal", aspect=45, pad=0.02, spacing="uniform")
    bar.set_ticks(edges[1:-1], labels=[str(abs(edge)) for edge in edges[1:-1]])
    bar.outline.set_visible(False)
    bar.set_label("← better     standard deviations from real digits     worse →", size=10.5)
    return figure


@draws_figure
def interval_panels(
    panels: Mapping[str, Mapping[str, Entry]],
    *,
    bands: Mapping[str, tuple[float, float]] | None = None,
    log: Sequence[str] = (),
    columns: int = 4,
    width: float = 8.4,
) -> Figure:
    """One panel per metric, one row per set: the value with its interval.

    Args:
        panels: ``{metric: {set: estimate}}``, the same sets in every panel.
        bands: ``{metric: (low, high)}``, the range of real digits; shaded.
        log: metrics with a logarithmic axis, linear below 0.1.
        columns: panels side by side.
        width: of the figure, inches.

    Raises:
        ValueError: no panel, or panels with different sets.

    Explained in the chapter *Metrics and their blind spots*.
    """
    if panels != {}:
        check_texts("panels", panels)
        for metric, rows in panels.items():
            if rows != {}:
                check_entries(f"panels[{metric!r}]", rows, 1)
    if log != ():
        check_texts("log", log, Sequence)
    if bands is not None:
        check_texts("bands", bands)
    for metric, band in (bands or {}).items():
        if not isinstance(band, tuple | list) or len(band) != 2:
            raise ValueError(f"bands[{metric!r}]: expected low and high, got {described(band)}.")
        for end in band:
            check_number(f"bands[{metric!r}]", end)
    sets = {metric: list(rows) for metric, rows in panels.items()}
    names = next(iter(sets.values()), [])
    if not names or any(rows != names for rows in sets.values()):
        raise ValueError(f"panels: expected at least one, the same sets in each, got {sets}.")
    figure, axes = panel_grid(len(panels), columns, width=width, height=0.9 + 0.22 * len(names), sharey=True)
    for ax, (metric, rows) in zip(axes, panels.items(), strict=True):
        if bands and metric in bands:
            ax.axvspan(*bands[metric], color=PALE["blue"], alpha=0.5, linewidth=0)
        for k, entry in enumerate(rows.values()):
            draw_estimate(ax, entry, k, color=VERMILION)
        if metric in log:
            ax.set_xscale("symlog", linthresh=0.1)
            ax.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
            ax.minorticks_off()
        ax.set_title(metric, size=11)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure
