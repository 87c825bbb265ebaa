"""Digits on paper: grids of images with labelled rows, and images as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_core.plotting._arrays import as_array, as_images
from fm_core.plotting.style import CARD, DIGIT_CMAP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["image_grid", "to_uint8"]


def to_uint8(images: Any) -> np.ndarray:
    """Pixels in [-1, 1] as bytes: ``round(255 (x + 1) / 2)``, clipped to 0 … 255; same shape.

    Args:
        images: any shape; -1 is black, 1 is white. What lies outside is clipped, as noise does.

    Raises:
        ValueError: a value that is not a number.
    """
    x = as_array(images)
    scaled = np.rint((np.clip(x, -1.0, 1.0).astype(np.float32) + 1.0) * 127.5)
    if not np.isfinite(scaled).all():
        raise ValueError("images hold NaN, which is no grey level; look for a diverging solver or loss.")
    return scaled.astype(np.uint8)


def image_grid(
    rows: Mapping[str, Any] | Any,
    *,
    columns: int | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    width: float = 7.0,
) -> Figure:
    """Images in rows, each row with its label on the left.

    Args:
        rows: ``{label: (N, 1, H, W)}`` with pixels in [-1, 1], one row per label; or one array, cut into rows of
            ``columns``.
        columns: images per row; by default as many as the longest row has, and 10 at most for one array.
        column_labels: one text per column, written above it.
        title: a line above the grid.
        width: of the figure, in inches; the height follows.

    Raises:
        ValueError: no rows, rows of different image size, or a wrong number of column labels.

    Explained in the chapter *Residual vs. Base*.
    """
    import matplotlib.pyplot as plt

    named = _named_rows(rows, columns)
    sizes = {label: images.shape[1:] for label, images in named}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"rows hold images of different sizes, {sizes}; they share one grid, so they need one size.")
    n_columns = columns or max(len(images) for _, images in named)
    if column_labels is not None and len(column_labels) != n_columns:
        raise ValueError(
            f"column_labels holds {len(column_labels)} texts for {n_columns} columns; give one per column."
        )
    height, across = named[0][1].shape[1:]
    gap = max(1, round(0.07 * across))
    span = n_columns * (across + gap) - gap
    figure = plt.figure(figsize=(width, 1.0), facecolor=CARD, layout="none")
    dpi, edge = figure.dpi, 0.08  # inches
    labels = [figure.text(0, 0, label, ha="right", va="center") for label, _ in named]
    label_inches = max(label.get_window_extent().width for label in labels) / dpi
    left = edge + (label_inches + edge if label_inches > 0.05 else 0.0)
    texts = [figure.text(0, 0, text, ha="center", va="bottom", size="small") for text in column_labels or []]
    head = edge + max([0.0, *(text.get_window_extent().height / dpi + 0.06 for text in texts)])
    heading = None if title is None else figure.text(edge / width, 0, title, ha="left", va="top", size=12)
    lid = 0.0 if heading is None else heading.get_window_extent().height / dpi + edge
    pixel = (width - left - edge) / span  # inches per pixel of an image
    if pixel * across < 0.1:
        plt.close(figure)
        raise ValueError(
            f"width={width} inches leaves no room for {n_columns} images beside the labels; choose a larger width, "
            "fewer columns, or labels broken by a newline."
        )
    total = lid + head + (len(named) * (height + gap) - gap) * pixel + edge
    figure.set_size_inches(width, total)
    for row, (text, (_, images)) in enumerate(zip(labels, named, strict=True)):
        bottom = total - lid - head - (row * (height + gap) + height) * pixel
        strip = np.full((height, span), np.nan, dtype=np.float32)  # NaN shows the card between the images
        for i, image in enumerate(images[:n_columns]):
            strip[:, i * (across + gap) : i * (across + gap) + across] = image
        ax = figure.add_axes((left / width, bottom / total, span * pixel / width, height * pixel / total))
        ax.imshow(strip, cmap=DIGIT_CMAP, vmin=-1, vmax=1, interpolation="nearest", aspect="auto")
        ax.set_axis_off()
        text.set_position(((left - edge) / width, (bottom + height * pixel / 2) / total))
    for i, text in enumerate(texts):
        middle = left + (i * (across + gap) + across / 2) * pixel
        text.set_position((middle / width, (total - lid - head + 0.05) / total))
    if heading is not None:
        heading.set_y((total - edge) / total)
    return figure


def _named_rows(rows: Mapping[str, Any] | Any, columns: int | None) -> list[tuple[str, np.ndarray]]:
    if isinstance(rows, Mapping):
        if not rows:
            raise ValueError("rows is empty; give at least one label with its images.")
        return [(str(label), as_images(images, f"rows[{label!r}]")) for label, images in rows.items()]
    images = as_images(rows, "rows")
    n = columns or min(10, len(images))
    return [("", images[i : i + n]) for i in range(0, len(images), n)]
