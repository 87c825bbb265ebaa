"""Probability paths of *The flow-matching objective*: conditional above marginal, lines through a point, digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_book.figures.common import check_texts, check_width
from fm_core._checks import check_count, check_number, check_type
from fm_core.plotting import plot_density, plot_field, plot_particles, plot_paths, to_uint8
from fm_core.plotting._arrays import ArrayLike, as_array, as_images
from fm_core.plotting.style import BLUE, CARD, INK, PALE, QUIET, VERMILION, draws_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from fm_core import ExactVelocity
    from fm_core.sliders import TimeSlider

__all__ = ["PathView", "draw_lines_through", "draw_path_grid", "path_slider"]


@dataclass(frozen=True)
class PathView:
    """One row of :func:`draw_path_grid`: a probability path in the plane.

    Attributes:
        states: trajectories of samples, ``(T, N, 2)``, from noise to data.
        density: at time t, on the fine mesh, ``(n * n,)``.
        velocity: at time t, on the coarse mesh, ``(m * m, 2)``.
        data: data points that this path leads to, ``(K, 2)``, marked in all panels.
        formulas: texts under the three panels.
    """

    states: ArrayLike
    density: ArrayLike
    velocity: ArrayLike
    data: ArrayLike
    formulas: tuple[str, str, str] = ("", "", "")


@draws_figure
def draw_path_grid(
    rows: Mapping[str, PathView],
    *,
    mesh: ArrayLike,
    arrows: ArrayLike,
    t: float,
    width: float = 8.0,
) -> Figure:
    """Draw each path as a row of three panels: trajectories of samples, density at time t, velocity at time t.

    Args:
        rows: ``{label: view}``; what follows a newline in a label is set smaller.
        mesh: fine mesh of the densities, ``(n * n, 2)``, see ``plane_mesh``; it sets the limits of all panels.
        arrows: coarse mesh of the velocities, ``(m * m, 2)``.
        t: time of densities and velocities, in [0, 1].
        width: of the figure, inches.

    Raises:
        ValueError: no rows, a time outside [0, 1], and the errors of ``plot_density``, ``plot_field``, ``plot_paths``.

    Explained in the chapter *The flow-matching objective*.
    """
    import matplotlib.pyplot as plt

    check_texts("rows", rows)
    for label, view in rows.items():
        check_type(f"rows[{label!r}]", view, PathView, "a PathView")
        for part, ndim in (("states", 3), ("density", 1), ("velocity", 2), ("data", 2)):
            values = as_array(getattr(view, part), f"rows[{label!r}].{part}")
            if values.ndim != ndim or not values.size or (ndim > 1 and values.shape[-1] != 2):
                raise ValueError(f"rows[{label!r}].{part}: expected {ndim} axes, 2 columns, got {values.shape}.")
        check_type(f"rows[{label!r}].formulas", view.formulas, tuple, "a tuple of three texts")
    t, width = check_number("t", t, least=0, most=1), check_width(width)
    for name, points in (("mesh", as_array(mesh, "mesh")), ("arrows", as_array(arrows, "arrows"))):
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 4:
            raise ValueError(f"{name}: expected (n * n, 2), got {points.shape}. Use plane_mesh(limit, n).")
    limit = float(np.abs(as_array(mesh)).max())
    figure, axes = plt.subplots(
        len(rows), 3, figsize=(width, 0.335 * width * len(rows) + 0.3), facecolor=CARD, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for (label, view), line in zip(rows.items(), axes, strict=True):
        states, speeds = as_array(view.states), np.hypot(*as_array(view.velocity).T)
        plot_paths(line[0], states, color=QUIET, linewidth=0.9)
        line[0].scatter(*states[0].T, s=12, color=BLUE, linewidths=0, zorder=3)
        line[0].scatter(*states[-1].T, s=12, color=VERMILION, linewidths=0, zorder=3)
        plot_density(line[1], mesh, view.density)
        typical = float(np.percentile(speeds, 75)) or 1.0  # faster arrows, mostly far from all samples, are cut
        plot_field(line[2], arrows, view.velocity, color=INK, reference=typical)
        for ax, formula in zip(line, view.formulas, strict=True):
            light = ax is line[1]
            ax.scatter(
                *as_array(view.data).T,
                s=95,
                marker="*",
                color=VERMILION,
                edgecolors=CARD,
                linewidths=0.7,
                zorder=4,
            )
            ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
            ax.set_xlabel(formula, size=11, color=INK, va="baseline", labelpad=15)
            ax.spines[:].set(visible=not light, color=PALE["grey"], linewidth=0.8)
        _label(line[0], label)
    for ax, heading in zip(axes[0], ("trajectories", f"density, t = {t:g}", f"velocity, t = {t:g}"), strict=True):
        ax.set_title(heading, loc="center")
    return figure


def draw_lines_through(ax: Axes, field: ExactVelocity, data: Tensor, x: Tensor, t: float) -> None:
    """Draw the lines from noise to each data point that pass through ``x`` at time t, and their mean velocity.

    The thicker a line, the more probable it is; its future is darker than its past. The arrow is the mean velocity
    times the remaining time.

    Args:
        ax: to draw on.
        field: exact velocity of the data points.
        data: the data points, ``(K, 2)``.
        x: the point, ``(2,)``.
        t: time, in [0, 1).
    """
    weights = field.weights(x[None], t)[0].tolist()
    starts = (x - t * data) / (1 - t)
    for start, end, weight in zip(starts, data, weights, strict=True):
        style: dict[str, Any] = {"color": BLUE, "linewidth": 0.5 + 6 * weight, "solid_capstyle": "butt"}
        for a, b, alpha in ((start, x, 0.1 + 0.2 * weight**0.5), (x, end, 0.3 + 0.5 * weight**0.5)):
            ax.plot([a[0], b[0]], [a[1], b[1]], "-", alpha=alpha, **style)
    plot_particles(ax, data, color=VERMILION, size=30)
    tip = x + (1 - t) * field(x[None], t)[0]
    shape = {"arrowstyle": "-|>", "color": "black", "lw": 2, "mutation_scale": 16, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (float(tip[0]), float(tip[1])), (float(x[0]), float(x[1])), arrowprops=shape)
    plot_particles(ax, x[None], color="black", size=45)


def path_slider(x_0: ArrayLike, x_1: ArrayLike, *, alt: str, frames: int = 41, **options: Any) -> TimeSlider:
    """The straight path ``x_t = (1 - t) x_0 + t x_1`` of images, between its two ends.

    Args:
        x_0: noise, ``(N, 1, H, W)``, N <= 8.
        x_1: digits, same shape, pixels in [-1, 1].
        alt, options: see :func:`fm_core.sliders.time_slider`.
        frames: from t = 0 to t = 1, 2 to 1,000.

    Raises:
        ValueError: ends of different shapes, more than 8 images, and the errors of ``time_slider``.

    Explained in the chapter *The flow-matching objective*.
    """
    from fm_core.sliders import round_levels, tile_frames, time_slider

    start, end = as_images(x_0, "x_0"), as_images(x_1, "x_1")
    if start.shape != end.shape or len(start) > 8:
        raise ValueError(f"x_1: expected the shape of x_0, at most 8 images, got {end.shape} for {start.shape}.")
    t = np.linspace(0, 1, check_count("frames", frames, 2, 1000))
    s = t[:, None, None, None]
    states = (np.broadcast_to(start, (len(t), *start.shape)), (1 - s) * start + s * end)
    states = (*states, np.broadcast_to(end, states[0].shape))
    names = ("$x_0$, noise", "$x_t$", "$x_1$, data")
    rows = {name: to_uint8(round_levels(x)) for name, x in zip(names, states, strict=True)}
    return time_slider(tile_frames(rows, side=4 * start.shape[1]), t, alt=alt, **options)


def _label(ax: Axes, label: str) -> None:
    head, _, rest = label.partition("\n")
    ax.set_ylabel(rest, size=10.5, color=QUIET)
    ax.annotate(
        head, (0, 0.5), (-26, 0), xycoords="axes fraction", textcoords="offset points", rotation=90, ha="right",
        va="center", size=13, weight="bold", color=INK,
    )  # fmt: skip
