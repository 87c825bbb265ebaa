"""Grids of digits: as a figure with labelled rows, and as an image file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fm_core._checks import check_count, check_number, check_path, check_text, described
from fm_core._files import atomic_file
from fm_core.plotting._arrays import ArrayLike, as_array, as_images
from fm_core.plotting.style import CARD, DIGIT_CMAP, draws_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_INCHES = 100  # of a figure's side

__all__ = ["image_grid", "save_image_grid", "to_uint8"]


def to_uint8(images: ArrayLike) -> np.ndarray:
    """Pixels in [-1, 1] as bytes of the same shape: ``round(255 (x + 1) / 2)``, clipped to 0 … 255.

    Raises:
        ValueError: NaN.
    """
    x = as_array(images, "images", finite=False)
    scaled = np.rint((np.clip(x, -1.0, 1.0).astype(np.float32) + 1.0) * 127.5)
    return as_array(scaled, "images").astype(np.uint8)


def save_image_grid(path: str | Path, images: ArrayLike, *, columns: int = 8) -> Path:
    """Write images to a file, ``columns`` to a row, black lines of 2 pixels between them.

    Args:
        path: PNG or another format of Pillow, by its suffix; the file is replaced as a whole.
        images: ``(N, 1, H, W)``, pixels in [-1, 1].
        columns: images per row.

    Raises:
        ValueError: images of another shape, NaN, or an unknown suffix.
    """
    from PIL import Image

    path, tiles = check_path("path", path), to_uint8(as_images(images))
    n, height, width = tiles.shape
    columns = min(check_count("columns", columns), n)
    padded = np.zeros((-(-n // columns) * columns, height + 2, width + 2), dtype=np.uint8)
    padded[:n, 2:, 2:] = tiles
    grid = padded.reshape(-1, columns, height + 2, width + 2).swapaxes(1, 2).reshape(-1, columns * (width + 2))
    with atomic_file(path) as part:
        Image.fromarray(np.pad(grid, ((0, 2), (0, 2)))).save(part)
    return path


@draws_figure
def image_grid(
    rows: Mapping[str, ArrayLike] | ArrayLike,
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
        columns: images per row, 1,000 at most; default: the longest row's, at most 10 for one array.
        column_labels: one text per column, above it.
        title: a line above the grid.
        width: of the figure, inches; the height follows.

    Raises:
        ValueError: no rows, rows of different image size, a wrong number of column labels, or no room.

    Explained in the chapter *Residual vs. Base*.
    """
    import matplotlib.pyplot as plt

    width = check_number("width", width, above=0, most=MAX_INCHES)
    columns = columns if columns is None else check_count("columns", columns, most=1000)
    named = _named_rows(rows, columns)
    title = title if title is None else check_text("title", title)
    sizes = {label: images.shape[1:] for label, images in named}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"rows: expected images of one size, got {sizes}.")
    n_columns = columns or max(len(images) for _, images in named)
    labelled = column_labels is None or (isinstance(column_labels, Sequence) and len(column_labels) == n_columns)
    if not labelled:
        raise ValueError(f"column_labels: expected {n_columns} texts, one per column, got {described(column_labels)}.")
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
        raise ValueError(
            f"width: expected room for {n_columns} images beside the labels, got {width} inches. Use a larger width, "
            "fewer columns, or labels with a line break."
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


def _named_rows(rows: Mapping[str, ArrayLike] | ArrayLike, columns: int | None) -> list[tuple[str, np.ndarray]]:
    if isinstance(rows, Mapping):
        if not rows:
            raise ValueError("rows: expected at least one label with its images, got none.")
        return [(str(label), as_images(images, f"rows[{label!r}]")) for label, images in rows.items()]
    images = as_images(rows, "rows")
    n = columns or min(10, len(images))
    return [("", images[i : i + n]) for i in range(0, len(images), n)]
