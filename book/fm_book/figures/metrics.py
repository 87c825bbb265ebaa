"""Figures of metrics on sets of images: a heatmap of deviations from real digits, and panels of intervals.

Green is better than real digits, purple is worse; the colours of the networks are left out.
"""

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
from fm_core.plotting.style import DIGIT_CMAP, INK, PALE, QUIET, draws_figure

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
    examples: ArrayLike | None = None,
    width: float = 8.6,
) -> Figure:
    """A table of metric values, coloured by their deviation from real digits.

    Args:
        values: ``(R, C)``, written into the cells.
        deviations: ``(R, C)``, in standard deviations of real digits; worse than they are above 0, better below.
        rows: names of the sets.
        columns: names of the metrics.
        digits: decimals of values below 10, for all columns or one number each; larger values get fewer.
        examples: ``(R, K, H, W)``, K images of each set, drawn beside its name.
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
    strip = None if examples is None else _strip(as_array(examples, "examples"), len(rows))
    edges = [-1e9, *(-s for s in reversed(STEPS)), *STEPS, 1e9]
    row = 0.38  # inches
    side = 1e-3 if strip is None else row * strip.shape[1] / (strip.shape[0] / len(rows))
    figure, (left, ax) = plt.subplots(
        1, 2, figsize=(width, 1.15 + row * len(rows)), width_ratios=[side, 0.75 * width - side], sharey=True
    )
    left.set(xticks=[], frame_on=False)
    left.grid(visible=False)
    if strip is not None:
        left.imshow(strip, cmap=DIGIT_CMAP, vmin=-1, vmax=1, extent=(0, 1, len(rows) - 0.5, -0.5), aspect="auto")
    colors = np.clip(deviations, -1e8, 1e8)
    image = ax.imshow(colors, cmap="PRGn_r", norm=BoundaryNorm(edges, 256), aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        size = abs(deviations[i, j])
        color = "white" if size >= STEPS[-2] else INK if size >= STEPS[0] else QUIET
        places = max(0, decimals[j] - max(0, int(np.floor(np.log10(max(abs(value), 1))))))
        weight = "bold" if size >= STEPS[0] else "normal"
        ax.text(j, i, f"{value:.{places}f}", ha="center", va="center", color=color, weight=weight, size=9.5)
    ax.set_xticks(range(len(columns)), columns, rotation=35, ha="left", rotation_mode="anchor")
    left.set_yticks(range(len(rows)), rows)
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, labelleft=False, length=0)
    cell_borders(ax, len(rows), len(columns))
    left.tick_params(which="both", length=0)
    bar = figure.colorbar(image, ax=[left, ax], orientation="horizontal", aspect=45, pad=0.02, spacing="uniform")
    bar.set_ticks(edges[1:-1], labels=[str(abs(edge)) for edge in edges[1:-1]])
    bar.outline.set_visible(False)
    bar.set_label("← better     standard deviations from real digits     worse →", size=10.5)
    return figure


def _strip(examples: np.ndarray, rows: int) -> np.ndarray:
    """Images ``(R, K, H, W)`` side by side and below each other, in white frames."""
    if examples.ndim != 4 or len(examples) != rows or 0 in examples.shape:
        raise ValueError(f"examples: expected shape ({rows}, K, H, W) for these rows, got {examples.shape}.")
    framed = np.pad(examples, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1.0)
    return framed.transpose(0, 2, 1, 3).reshape(rows * framed.shape[2], -1)


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
            ax.axvspan(*bands[metric], color=PALE["grey"], linewidth=0)
        for k, entry in enumerate(rows.values()):
            draw_estimate(ax, entry, k, color=INK)
        if metric in log:
            ax.set_xscale("symlog", linthresh=0.1)
            ax.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
            ax.minorticks_off()
        ax.set_title(metric, size=11)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure
