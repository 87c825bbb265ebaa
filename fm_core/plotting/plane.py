"""Distributions in the plane: density as a filled image, particles, paths, and the field that moves them.

Each function draws one layer on given axes, density first; the axes get equal proportions and lose ticks and frame. The
default colour of a layer is white over a density, else dark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from fm_core._checks import check_choice, check_count, check_number
from fm_core.plotting._arrays import ArrayLike, as_array, check_axes
from fm_core.plotting.style import BLUE, INK, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage

__all__ = ["plane_mesh", "plot_density", "plot_field", "plot_particles", "plot_paths"]

FieldKind: TypeAlias = Literal["arrows", "stream"]

_ARROWS = 13  # arrows along a side, at most
_LONGEST = 0.9  # length of the longest arrow over the distance between two arrows


def plane_mesh(limit: float = 3.0, n: int = 41) -> np.ndarray:
    """Points of a square grid over ``[-limit, limit]²``, row by row from the bottom.

    ``mesh.reshape(n, n, 2)[i, j]`` is ``(x_j, y_i)``: ``values.reshape(n, n)`` is an image with ``origin="lower"``.

    Args:
        limit: half the side, positive.
        n: points along a side, from 2 to 10,000.

    Returns:
        ``(n * n, 2)``, float32.

    Raises:
        ValueError: a limit that is not positive, or fewer than 2 points along a side.

    Explained in the chapter *From noise to data along a flow*.
    """
    limit = check_number("limit", limit, above=0)
    line = np.linspace(-limit, limit, check_count("n", n, 2, 10_000), dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def plot_density(
    ax: Axes, mesh: ArrayLike, density: ArrayLike, *, cmap: str | Colormap = "cividis", limit: float | None = None
) -> AxesImage:
    """Draw a density on a mesh as a filled image.

    Args:
        ax: where to draw.
        mesh: ``(n * n, 2)``, as :func:`plane_mesh` gives it.
        density: ``(n * n,)``, per unit of area, not negative.
        cmap: colour map, from low to high.
        limit: density of the last colour; default: the largest. Give the same number to panels that are compared.

    Raises:
        ValueError: a mesh that is no square grid, a density of another shape or with negative or undefined values.

    Explained in the chapter *From noise to data along a flow*.
    """
    check_axes(ax)
    x, y = _sides(mesh)
    values = as_array(density, "density")
    if values.shape != (len(x) * len(y),):
        raise ValueError(f"density: expected one number per point, ({len(x) * len(y)},), got {values.shape}.")
    if values.min() < 0:
        raise ValueError(f"density: expected numbers of at least 0, got {values.min():g}. Give exp(log_density).")
    limit = float(values.max()) or 1.0 if limit is None else check_number("limit", limit, above=0)
    half = ((x[1] - x[0]) / 2, (y[1] - y[0]) / 2)  # the outer pixels are centred on the outer points
    picture = ax.imshow(
        values.reshape(len(y), len(x)), cmap=cmap, vmin=0, vmax=limit, origin="lower", interpolation="bilinear",
        extent=(x[0] - half[0], x[-1] + half[0], y[0] - half[1], y[-1] + half[1]), aspect="equal",
    )  # fmt: skip
    _plane(ax, x, y)
    return picture


def plot_field(
    ax: Axes,
    mesh: ArrayLike,
    velocity: ArrayLike,
    *,
    kind: FieldKind = "arrows",
    color: str | None = None,
    reference: float | None = None,
) -> None:
    """Draw a velocity field of the plane, as arrows or as streamlines.

    Arrow lengths are proportional to the speed; a fine mesh is thinned. Streamlines follow the field at one t, thicker
    where it is faster; they are particle paths only if the field does not depend on t.

    Args:
        ax: where to draw.
        mesh: ``(n * n, 2)``, as :func:`plane_mesh` gives it.
        velocity: ``(n * n, 2)``, lengths per unit of time.
        kind: ``"arrows"`` or ``"stream"``.
        color: default: grey, or white over a density.
        reference: speed of the longest arrow or thickest line; default: the 98th percentile. Give the same number to
            panels that are compared.

    Raises:
        ValueError: a mesh that is no square grid, a velocity of another shape or with undefined values, another kind,
            a reference that is not positive.

    Explained in the chapter *From noise to data along a flow*.
    """
    check_axes(ax, color)
    x, y = _sides(mesh)
    field = as_array(velocity, "velocity")
    if field.shape != (len(x) * len(y), 2):
        raise ValueError(f"velocity: expected one vector per point, {len(x) * len(y), 2}, got {field.shape}.")
    check_choice("kind", kind, ("arrows", "stream"))
    speed = np.hypot(*field.T)
    default = float(np.percentile(speed, 98)) or 1.0
    reference = default if reference is None else check_number("reference", reference, above=0)
    color = color or _over_density(ax, QUIET)
    grid = field.reshape(len(y), len(x), 2).astype(float)
    strength = np.minimum(speed / reference, 1).reshape(len(y), len(x))
    if kind == "stream":
        ax.streamplot(
            x, y, grid[..., 0], grid[..., 1], color=color, density=1.0, linewidth=0.4 + 1.4 * strength, arrowsize=0.8,
            zorder=1.5,
        )  # fmt: skip
    else:
        step = max(1, -(-max(len(x), len(y)) // _ARROWS))
        pick = (slice((len(y) - 1) % step // 2, None, step), slice((len(x) - 1) % step // 2, None, step))
        xs, ys = np.meshgrid(x[pick[1]], y[pick[0]])
        shorten = np.minimum(1, reference / np.maximum(speed, 1e-30)).reshape(strength.shape)  # none crosses the next
        u, v = np.moveaxis(grid[pick] * shorten[pick][..., None], -1, 0)
        ax.quiver(
            xs, ys, u, v, color=color, pivot="mid", angles="xy", scale_units="xy", units="xy",
            scale=reference / (_LONGEST * step * (x[1] - x[0])), width=0.07 * step * (x[1] - x[0]), headwidth=3.6,
            headlength=4.2, headaxislength=3.8, minshaft=1.3, minlength=0.3, zorder=1.5,
        )  # fmt: skip
    _plane(ax, x, y)


def plot_particles(
    ax: Axes, x: ArrayLike, *, color: str | None = None, size: float = 6, label: str | None = None
) -> PathCollection:
    """Draw particles as dots.

    Args:
        ax: where to draw; without a density or a field under it, its limits follow the particles.
        x: ``(N, 2)``.
        color: default: blue, or white over a density.
        size: area of a dot, in square points, at most 10,000.
        label: for a legend.

    Raises:
        ValueError: particles of another shape.

    Explained in the chapter *From noise to data along a flow*.
    """
    check_axes(ax, color)
    points, size = as_array(x, "x"), check_number("size", size, least=0, most=10_000)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"x: expected particles in the plane, (N, 2), got {points.shape}.")
    color = color or _over_density(ax, BLUE)
    dots = ax.scatter(*points.T, s=size, color=color, alpha=0.75, linewidths=0, label=label, zorder=2)
    _plane(ax)
    return dots


def plot_paths(ax: Axes, states: ArrayLike, *, color: str | None = None, linewidth: float = 0.8) -> None:
    """Draw trajectories of particles as thin lines, each with a dot at its end.

    Args:
        ax: where to draw; without a density or a field under it, its limits follow the paths.
        states: ``(T, N, 2)``, as in ``Trajectory.x``.
        color: default: dark, or white over a density.
        linewidth: in points.

    Raises:
        ValueError: states of another shape.

    Explained in the chapter *From noise to data along a flow*.
    """
    from matplotlib.collections import LineCollection

    check_axes(ax, color)
    paths, linewidth = as_array(states, "states"), check_number("linewidth", linewidth, least=0, most=100)
    if paths.ndim != 3 or paths.shape[2] != 2 or 0 in paths.shape:
        raise ValueError(f"states: expected paths in the plane, (T, N, 2), got {paths.shape}.")
    color = color or _over_density(ax, INK)
    ax.add_collection(
        LineCollection(list(paths.swapaxes(0, 1)), colors=color, linewidths=linewidth, alpha=0.6, zorder=1.8)
    )
    ax.scatter(*paths[-1].T, s=8 * linewidth, color=color, linewidths=0, zorder=2)
    _plane(ax)


def _sides(mesh: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The x and the y coordinates of a square mesh, float64."""
    points = as_array(mesh, "mesh")
    n = round(len(points) ** 0.5) if points.ndim == 2 else 0
    if n < 2 or points.shape != (n * n, 2):
        raise ValueError(f"mesh: expected (n * n, 2), got {points.shape}. Use plane_mesh(limit, n).")
    grid = points.reshape(n, n, 2).astype(float)
    x, y = np.linspace(grid[0, 0, 0], grid[0, -1, 0], n), np.linspace(grid[0, 0, 1], grid[-1, 0, 1], n)
    if not (x[1] > x[0] and y[1] > y[0] and np.allclose(grid, np.stack(np.meshgrid(x, y), -1), atol=1e-4)):
        raise ValueError("mesh: expected a grid with rows from bottom to top, got another. Use plane_mesh(limit, n).")
    return x, y


def _over_density(ax: Axes, otherwise: str) -> str:
    return "white" if ax.images else otherwise


def _plane(ax: Axes, x: np.ndarray | None = None, y: np.ndarray | None = None) -> None:
    """Equal proportions, no ticks, no frame; with a mesh, its limits."""
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    if x is not None and y is not None:
        ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
