"""A table of differences at a glance: who is ahead in which cell, and where the interval cannot tell.

One decision is made here. A cell is filled with a network's colour only where the interval of the difference leaves no
zero; the number is written everywhere. So the eye sees the verdicts first, and how many cells have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_book.figures.comparison import NETWORK_LABELS, SOLVER_LABELS, network_style
from fm_book.figures.metrics import cell_borders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["verdict_map", "verdicts"]


def verdicts(
    cells: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What the intervals of a table of differences ``A - B`` say: A ahead, B ahead, or undecided.

    Args:
        cells: ``{"SOLVER-NFE": {metric: estimate}}``, as an entry of the record's ``differences``.
        metrics: ``{metric: sign}``, 1 where more is better and -1 where less is.

    Returns:
        ``verdict`` and ``mean``, ``(metrics, cells)``, and the cells' names. A verdict is 1 where the interval
        says that A is better, -1 for B, and 0 where it holds zero.
    """
    mean, low, high = (
        np.array([[cell[metric][end] for cell in cells.values()] for metric in metrics], dtype=float)
        for end in ("mean", "low", "high")
    )
    sign = np.array(list(metrics.values()))[:, None]
    return sign * ((low > 0).astype(int) - (high < 0).astype(int)), mean, list(cells)


def verdict_map(
    cells: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, int],
    *,
    a: str,
    b: str,
    rows: Sequence[str] | None = None,
    width: float = 8.4,
) -> Figure:
    """All differences ``A - B`` at once, coloured by who is ahead: filled where the interval leaves no zero.

    Args:
        cells: ``{"SOLVER-NFE": {metric: estimate}}``, as an entry of the record's ``differences``.
        metrics: ``{metric: sign}``, 1 where more is better and -1 where less is.
        a, b: the two networks, keys of :data:`NETWORK_LABELS`; the difference is a minus b.
        rows: titles of the metrics.
        width: of the figure, in inches.

    Explained in the chapter *Residual vs. Base, fairly*.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    verdict, mean, names = verdicts(cells, metrics)
    colors = [network_style(b)["color"], "#ECEEEC", network_style(a)["color"]]
    figure, ax = plt.subplots(figsize=(width, 1.5 + 0.4 * len(metrics)))
    ax.imshow(verdict, cmap=ListedColormap(colors), vmin=-1, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(mean):
        places = 1 if abs(value) >= 1 else 2 if abs(value) >= 0.1 else 3
        style = {"color": "white", "weight": "bold"} if verdict[i, j] else {"color": "#5A6068"}
        ax.text(j, i, f"{value:+.{places}f}", ha="center", va="center", size=9, **style)
    solvers = [name.partition("-") for name in names]
    ax.set_xticks(range(len(names)), [f"{SOLVER_LABELS.get(s, s)}\n{nfe}" for s, _, nfe in solvers], size=9.5)
    ax.set_yticks(range(len(metrics)), rows or list(metrics))
    ax.tick_params(length=0)
    cell_borders(ax, len(metrics), len(names))
    words = (f"{NETWORK_LABELS[b]} ahead", "the interval holds 0", f"{NETWORK_LABELS[a]} ahead")
    patches = [Patch(color=color, label=word) for color, word in zip(colors, words, strict=True)]
    figure.legend(handles=patches, loc="outside upper center", ncols=3, frameon=False)
    return figure
