"""One picture of flow matching: what belongs to one data point above, what belongs to all of them below.

The columns are the same three views of a probability path in both rows, so that the eye can compare straight down: how
samples travel, how dense they lie at one moment, and the velocity that moves them then. Arrays in, a figure out; arrows
share one scale, densities do not, since a single bump is many times higher than a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_core.plotting._arrays import as_array
from fm_core.plotting.plane import plot_density, plot_field, plot_paths
from fm_core.plotting.style import CARD, COLORS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PathView", "draw_path_grid"]

_NOISE, _DATA = COLORS["base"], COLORS["residual"]


@dataclass(frozen=True)
class PathView:
    """One row of :func:`draw_path_grid`: a probability path in the plane.

    Attributes:
        states: ways of samples, ``(T, N, 2)``, from noise to data.
        density: at the moment shown, on the fine mesh, ``(n * n,)``.
        velocity: at the same moment, on the coarse mesh, ``(m * m, 2)``, lengths per unit of time.
        data: the data points that this path leads to, ``(K, 2)``; they are marked in all three panels.
        formulas: what to write under the panels, three texts; mathtext between dollar signs is set.
    """

    states: Any
    density: Any
    velocity: Any
    data: Any
    formulas: tuple[str, str, str] = ("", "", "")


def draw_path_grid(rows: Mapping[str, PathView], *, mesh: Any, arrows: Any, t: float, width: float = 8.0) -> Figure:
    """Draw each path as a row of three panels: samples on their way, density at time t, velocity at time t.

    Args:
        rows: ``{label: view}``; a label may break its line with a newline, and what follows is set smaller.
        mesh: fine mesh of the densities, ``(n * n, 2)``, as :func:`~fm_core.plotting.plane_mesh` gives it. Its limits
            are those of all panels.
        arrows: coarse mesh of the velocities, ``(m * m, 2)``, likewise.
        t: the moment of densities and velocities, for the headings, in [0, 1].
        width: of the figure, in inches; the height follows from the number of rows.

    Raises:
        ValueError: no rows, a time outside [0, 1], and what ``plot_density``, ``plot_field`` and ``plot_paths`` refuse.

    Explained in the chapter *The flow-matching objective*.
    """
    import matplotlib.pyplot as plt

    if not rows:
        raise ValueError("rows is empty; give at least one label with its PathView.")
    if not 0 <= t <= 1:
        raise ValueError(f"t={t}: times run from 0 (noise) to 1 (data).")
    limit = float(np.abs(as_array(mesh)).max())
    figure, axes = plt.subplots(
        len(rows), 3, figsize=(width, 0.335 * width * len(rows) + 0.3), facecolor=CARD, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for (label, view), line in zip(rows.items(), axes, strict=True):
        _samples(line[0], as_array(view.states))
        plot_density(line[1], mesh, view.density)
        plot_field(line[2], arrows, view.velocity, color=INK, reference=_typical(view.velocity))
        for ax, formula in zip(line, view.formulas, strict=True):
            light = ax is line[1]
            ax.scatter(*as_array(view.data).T, s=95, marker="*", color=_DATA, edgecolors=CARD, linewidths=0.7, zorder=4)
            ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
            ax.set_xlabel(formula, size=11, color=INK, va="baseline", labelpad=15)
            ax.spines[:].set(visible=not light, color="#C9CCCB", linewidth=0.8)
        _label(line[0], label)
    for ax, heading in zip(
        axes[0], ("samples on their way", f"density, t = {t:g}", f"velocity, t = {t:g}"), strict=True
    ):
        ax.set_title(heading, loc="center")
    return figure


def _typical(velocity: Any) -> float:
    """The speed of the longest arrow; what is faster, mostly far away from all samples, is cut to it."""
    return float(np.percentile(np.hypot(*as_array(velocity).T), 75)) or 1.0


def _samples(ax: Axes, states: np.ndarray) -> None:
    plot_paths(ax, states, color="#8A9098", linewidth=0.9)
    ax.scatter(*states[0].T, s=12, color=_NOISE, linewidths=0, zorder=3)
    ax.scatter(*states[-1].T, s=12, color=_DATA, linewidths=0, zorder=3)


def _label(ax: Axes, label: str) -> None:
    head, _, rest = label.partition("\n")
    ax.set_ylabel(rest, size=10.5, color="#5B626B")
    ax.annotate(
        head, (0, 0.5), (-26, 0), xycoords="axes fraction", textcoords="offset points", rotation=90, ha="right",
        va="center", size=13, weight="bold", color=INK,
    )  # fmt: skip
