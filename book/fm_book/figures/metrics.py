"""What metrics make of sets of images: a map of alarms to take in at a glance, and panels of intervals to read off.

One decision is made here. Metrics have different units and directions, so the map colours neither the value nor its
rank but the *alarm*: by how many spreads of real digits the metric calls a set worse than real digits. White is a
metric that has not noticed; the second colour is one that was fooled, and calls the set better than real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_core.plotting._arrays import as_array
from fm_core.plotting.style import COLORS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["alarm_map", "cell_borders", "interval_panels"]

STEPS = (4, 10, 30, 100)  # spreads of real digits at which the colour changes; 20 draws give 4 by chance once in 1,000


def alarm_map(
    values: Any,
    alarms: Any,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    digits: int | Sequence[int] = 2,
    width: float = 7.4,
) -> Figure:
    """A table of metric values, each cell coloured by how loudly the metric raises the alarm.

    Args:
        values: ``(R, C)``, written into the cells.
        alarms: ``(R, C)``, by how many spreads of real digits a cell is worse (above 0) or better (below 0) than they.
        rows: R names of the sets.
        columns: C names of the metrics.
        digits: decimals of values below 10, for all columns or one number for each; larger values get fewer.
        width: of the figure, in inches.

    Raises:
        ValueError: shapes that do not fit together.

    Explained in the chapter *Can we trust the ruler?*.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import BoundaryNorm

    values, alarms = as_array(values), as_array(alarms)
    decimals = [digits] * len(columns) if isinstance(digits, int) else list(digits)
    if values.shape != (len(rows), len(columns)) or alarms.shape != values.shape or len(decimals) != len(columns):
        raise ValueError(
            f"values have shape {values.shape}, alarms {alarms.shape} and digits {len(decimals)} entries, for "
            f"{len(rows)} rows and {len(columns)} columns; give one number per row and column, and one per column."
        )
    edges = [-1e9, *(-s for s in reversed(STEPS)), *STEPS, 1e9]
    norm = BoundaryNorm(edges, 256)
    figure, ax = plt.subplots(figsize=(width, 1.15 + 0.38 * len(rows)))
    image = ax.imshow(np.clip(alarms, -1e8, 1e8), cmap="PuOr_r", norm=norm, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        seen = abs(alarms[i, j]) >= STEPS[0]
        color = "white" if abs(alarms[i, j]) >= STEPS[-2] else INK if seen else "#6A7078"
        places = max(0, decimals[j] - max(0, int(np.floor(np.log10(max(abs(value), 1))))))
        ax.text(j, i, f"{value:.{places}f}", ha="center", va="center", color=color, weight="bold" if seen else "normal")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    cell_borders(ax, len(rows), len(columns))
    bar = figure.colorbar(image, ax=ax, orientation="horizontal", aspect=45, pad=0.02, spacing="uniform")
    bar.set_ticks(edges[1:-1], labels=[str(abs(edge)) for edge in edges[1:-1]])
    bar.outline.set_visible(False)
    bar.set_label("← better than real digits     spreads of real digits     worse than real digits →", size=10.5)
    return figure


def cell_borders(ax: Axes, rows: int, columns: int) -> None:
    """White lines between the cells of a table that was drawn with ``imshow``, and no frame around it."""
    ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    ax.grid(visible=False)
    ax.grid(visible=True, which="minor", color="white", linewidth=2)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)


def interval_panels(
    panels: Mapping[str, Mapping[str, Any]],
    *,
    bands: Mapping[str, tuple[float, float]] | None = None,
    log: Sequence[str] = (),
    columns: int = 4,
    width: float = 8.4,
) -> Figure:
    """One panel per metric, one line per set: the value as a dot with its interval.

    Args:
        panels: ``{metric: {set: interval}}``, each interval with ``value``, ``low`` and ``high``; every panel holds the
            same sets.
        bands: ``{metric: (low, high)}``, where real digits lie; a shaded stripe.
        log: metrics with a logarithmic axis, linear below 0.1 so that 0 has a place.
        columns: panels side by side.
        width: of the figure, in inches.

    Raises:
        ValueError: no panel, or panels with different sets.

    Explained in the chapter *Can we trust the ruler?*.
    """
    import matplotlib.pyplot as plt

    sets = {name: list(rows) for name, rows in panels.items()}
    if not sets or any(rows != next(iter(sets.values())) for rows in sets.values()):
        raise ValueError(f"panels hold different sets, {sets}; give at least one panel, and the same sets in each.")
    names = next(iter(sets.values()))
    down = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        down, columns, figsize=(width, down * (0.9 + 0.22 * len(names))), sharey=True, squeeze=False
    )
    for ax, (metric, rows) in zip(axes.flat, panels.items(), strict=False):
        if bands and metric in bands:
            ax.axvspan(*bands[metric], color="#B9C4C9", alpha=0.6, linewidth=0)
        for k, interval in enumerate(rows.values()):
            ax.plot([interval.low, interval.high], [k, k], color=INK, linestyle="-", linewidth=1.5)
            ax.plot(interval.value, k, "o", color=COLORS["residual"], markersize=5)
        if metric in log:
            ax.set_xscale("symlog", linthresh=0.1)
            ax.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
            ax.minorticks_off()
        ax.set_title(metric, size=11)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_axis_off()
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return figure
