"""Two views of a velocity field on images: arrows over the digit, and the exact signed image.

The velocity of a 28 × 28 image has 784 components, one rate of change of a grey level per pixel. The *ink arrows* are
the spatial gradient of the block-averaged velocity image: they point towards blocks that brighten more, or darken less,
than their neighbours, and are not the velocity of particles in the plane. The exact view is the signed velocity image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fm_core._checks import check_count, check_number, described
from fm_core.plotting._arrays import ArrayLike, as_array, as_image, as_states, as_velocities, check_axes
from fm_core.plotting.images import MAX_INCHES
from fm_core.plotting.style import ARROW_COLOR, CARD, DIGIT_CMAP, VELOCITY_CMAP, draws_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage
    from matplotlib.quiver import Quiver

    from fm_core.solvers import Trajectory

__all__ = ["block_average", "ink_arrows", "plot_state", "plot_trajectory", "plot_velocity"]


def block_average(image: ArrayLike, factor: int = 4) -> np.ndarray:
    """Mean over blocks of ``factor × factor`` pixels, ``(…, H // factor, W // factor)``.

    Rows and columns at the bottom and at the right that fill no whole block are cropped.

    Args:
        image: ``(…, H, W)``.
        factor: side of a block, pixels.

    Raises:
        ValueError: no image, or a factor that is not a whole number from 1 to the image's shorter side.

    Explained in the chapter *Seeing the velocity field*.
    """
    return _block_average(as_array(image, "image"), factor, "image")


def _block_average(x: np.ndarray, factor: int, name: str) -> np.ndarray:
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"{name}: expected the axes (…, H, W), got {x.shape}.")
    height, width = x.shape[-2:]
    factor = check_count("factor", factor, most=min(height, width))
    rows, columns = height // factor, width // factor
    x = x[..., : rows * factor, : columns * factor]
    return x.reshape(*x.shape[:-2], rows, factor, columns, factor).mean(axis=(-3, -1))


def ink_arrows(velocity: ArrayLike, factor: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Arrows towards blocks that brighten more, or darken less, than their neighbours.

    The spatial gradient of the block-averaged velocity image.

    ``(dx, dy) = ∇ (block average of v)``, central differences inside, one-sided at the border. Arrows point from pixels
    that darken to pixels that brighten; they are not the velocity of a particle in the plane.

    Args:
        velocity: ``(…, H, W)``, grey levels per unit time (black to white is 2).
        factor: side of a block in pixels; the image must hold at least 2 × 2 blocks.

    Returns:
        ``xs`` and ``ys``, ``(rows, columns)``, block centres in pixels, whole numbers at pixel centres; ``dx`` and
        ``dy``, ``(…, rows, columns)``, grey levels per unit time and pixel, y downwards.

    Raises:
        ValueError: fewer than 2 × 2 blocks, or a factor that fits no block.

    Explained in the chapter *Seeing the velocity field*.
    """
    factor = check_count("factor", factor)
    blocks = _block_average(as_array(velocity, "velocity"), factor, "velocity")
    rows, columns = blocks.shape[-2:]
    if min(rows, columns) < 2:
        raise ValueError(
            f"factor: expected at least 2 × 2 blocks, got {rows} × {columns} with {factor}. Use a smaller one."
        )
    dy, dx = np.gradient(blocks, float(factor), axis=(-2, -1))
    centre = (factor - 1) / 2
    xs, ys = np.meshgrid(np.arange(columns) * factor + centre, np.arange(rows) * factor + centre)
    return xs, ys, dx, dy


def plot_state(
    ax: Axes,
    x: ArrayLike,
    velocity: ArrayLike,
    factor: int = 4,
    *,
    reference: float | None = None,
    color: str = ARROW_COLOR,
) -> Quiver:
    """Draw a state in grey with its ink arrows.

    For the arrows see :func:`ink_arrows`, for the exact field :func:`plot_velocity`.

    Args:
        ax: where to draw.
        x: the state, ``(H, W)`` or ``(1, H, W)``, pixels in [-1, 1].
        velocity: same shape, grey levels per unit time.
        factor: side of a block in pixels.
        reference: the gradient, in grey levels per unit time and pixel, whose arrow is 1.3 blocks long; by default
            the largest in this field. Arrows below 8 % of it are left out. Give the same number to panels that are
            compared.
        color: of the arrows.

    Raises:
        ValueError: images of different shapes, and what ``ink_arrows`` refuses.

    Explained in the chapter *Seeing the velocity field*.
    """
    check_axes(ax, color)
    state, field = as_image(x, "x"), as_image(velocity, "velocity")
    if state.shape != field.shape:
        raise ValueError(f"velocity: expected the shape of x, {state.shape}, got {field.shape}.")
    factor = check_count("factor", factor)
    xs, ys, dx, dy = ink_arrows(field, factor)
    strength = np.hypot(dx, dy)
    # a field without gradient has no arrows
    reference = (
        float(strength.max()) or 1.0 if reference is None else check_number("reference", reference, least=0) or 1.0
    )
    shown = strength >= 0.08 * reference
    ax.imshow(state, cmap=DIGIT_CMAP, vmin=-1, vmax=1, interpolation="nearest")
    _bare(ax)
    arrows = ax.quiver(
        xs[shown], ys[shown], dx[shown], dy[shown], color=color, edgecolor="black", linewidth=0.3, pivot="mid",
        angles="xy", scale_units="xy", scale=reference / (1.3 * factor), units="xy", width=0.125 * factor, headwidth=4,
        headlength=4.4, headaxislength=4, minshaft=1.2, minlength=0, clip_on=False,
    )  # fmt: skip
    arrows.set_in_layout(False)
    return arrows


def plot_velocity(ax: Axes, velocity: ArrayLike, *, limit: float | None = None, colorbar: bool = True) -> AxesImage:
    """Draw the exact view: the signed velocity image on a diverging map centred at 0.

    Red pixels brighten (ink arrives), blue pixels darken (ink leaves); one component per pixel.

    Args:
        ax: where to draw.
        velocity: ``(H, W)`` or ``(1, H, W)``, grey levels per unit time (black to white is 2).
        limit: the colour map spans [-limit, limit]; by default the largest absolute value.
        colorbar: whether to draw a colour bar.

    Raises:
        ValueError: more than one image, or a limit that is not positive.

    Explained in the chapter *Seeing the velocity field*.
    """
    check_axes(ax)
    field = as_image(velocity, "velocity")
    limit = float(np.abs(field).max()) or 1.0 if limit is None else check_number("limit", limit, above=0)
    picture = ax.imshow(field, cmap=VELOCITY_CMAP, vmin=-limit, vmax=limit, interpolation="nearest")
    _bare(ax)
    if colorbar:
        _colorbar(ax.figure, picture, [ax])
    return picture


@draws_figure
def plot_trajectory(
    trajectory: Trajectory,
    index: int = 0,
    times: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    *,
    factor: int = 4,
    width: float = 8.0,
) -> Figure:
    """Draw one sample over time: above the state with its ink arrows, below the exact signed velocity.

    Arrow lengths and colours share one scale over all times.

    Args:
        trajectory: with ``.t`` (T,), ``.x`` and ``.velocity`` (T, B, 1, H, W), as ``fm_core.solve`` gives it.
        index: which sample of the batch.
        times: times to show; each is replaced by the nearest snapshot, whose t is written above it.
        factor: side of a block in pixels.
        width: of the figure, in inches; the height follows.

    Raises:
        ValueError: no times, a trajectory without velocities, or an index outside the batch.

    Explained in the chapter *Seeing the velocity field*.
    """
    import matplotlib.pyplot as plt

    (t, x), velocity = as_states(trajectory), as_velocities(trajectory)
    index = check_count("index", index, least=-x.shape[1])
    if index >= x.shape[1]:
        raise ValueError(f"index: expected one of the {x.shape[1]} samples, got {index}.")
    width, shown = check_number("width", width, above=2.2, most=MAX_INCHES), as_array(times, "times")
    if shown.ndim != 1 or not 1 <= len(shown) <= 100:
        raise ValueError(f"times: expected 1 to 100 times, got {described(times)}.")
    chosen = [int(np.abs(t - time).argmin()) for time in shown]
    states, fields = x[chosen, index], velocity[chosen, index]
    _, _, dx, dy = ink_arrows(fields, factor)
    reference, limit = float(np.hypot(dx, dy).max()), float(np.abs(fields).max()) or 1.0
    side = (width - 2.2) / len(chosen)
    figure, axes = plt.subplots(
        2, len(chosen), figsize=(width, 2 * side * x.shape[2] / x.shape[3] + 0.4), squeeze=False, layout="compressed"
    )
    figure.set_facecolor(CARD)
    for column, k in enumerate(chosen):
        plot_state(axes[0, column], states[column], fields[column], factor, reference=reference)
        plot_velocity(axes[1, column], fields[column], limit=limit, colorbar=False)
        axes[0, column].set_title(f"t = {t[k]:.2f}", loc="center")
    axes[0, 0].set_ylabel("state and\nink arrows", rotation=0, ha="right", va="center")
    axes[1, 0].set_ylabel("velocity,\npixel by pixel", rotation=0, ha="right", va="center")
    _colorbar(figure, axes[1, 0].images[0], list(axes[1]))
    return figure


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _colorbar(figure: Figure | SubFigure, picture: AxesImage, axes: list[Axes]) -> None:
    bar = figure.colorbar(picture, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label("grey levels\nper unit time")
    bar.outline.set_visible(False)
