"""Faults of drawn digits that the eye sees and features of a classifier hardly do: pieces, specks, holes, blur, grey.

Ink is a pixel above :data:`INK`. A piece is a set of ink pixels that touch at their sides; a hole is a set of paper
pixels that touch at sides or corners and that ink surrounds.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ARTEFACTS", "INK", "SPECK", "artefacts"]

INK = -0.4  # grey level in [-1, 1], 30 % of full ink
SPECK = 3  # pixels; a piece of at most as many is a speck
ARTEFACTS = {
    "pieces": "in more than one piece",
    "outside": "ink outside the largest piece",
    "specks": "with a speck",
    "holes": "holes",
    "edge": "steepness of edges",
    "grey": "share of mid-grey ink",
}
_CORNERS = np.ones((3, 3), dtype=bool)


def artefacts(images: Tensor) -> dict[str, Tensor]:
    """Faults of each image.

    Args:
        images: ``(N, 1, H, W)``, -1 is paper and 1 is ink.

    Returns:
        By name, each ``(N,)``, float64. ``pieces``: 1 unless all ink is one piece. ``outside``: share of the ink pixels
        outside the largest piece. ``specks``: 1 if a piece beside the largest has at most :data:`SPECK` pixels.
        ``holes``: their number. ``edge``: mean of the 5 % steepest changes between neighbouring pixels, in grey levels
        of [-1, 1] per pixel. ``grey``: share of the pixels above -0.9 that lie below 0.5. An image without ink counts
        as more than one piece.

    Raises:
        ValueError: another shape.
    """
    if images.ndim != 4 or images.shape[1] != 1 or not len(images):
        raise ValueError(f"images: expected shape (N, 1, H, W) with N at least 1, got {tuple(images.shape)}.")
    x = images.detach().cpu().double()
    counted = torch.tensor([_pieces(image) for image in (x[:, 0] > INK).numpy()], dtype=torch.float64)
    across, down = (F.pad(x.diff(dim=d), pad).flatten(1) for d, pad in ((3, (0, 1)), (2, (0, 0, 0, 1))))
    steep = (across.square() + down.square()).sqrt()
    drawn, solid = (x > -0.9).flatten(1).sum(1), (x > 0.5).flatten(1).sum(1)
    return {
        "pieces": counted[:, 0],
        "outside": counted[:, 1],
        "specks": counted[:, 2],
        "holes": counted[:, 3],
        "edge": steep.topk(max(1, round(0.05 * steep.shape[1])), dim=1).values.mean(1),
        "grey": 1 - solid.double() / drawn.clamp(min=1),
    }


def _pieces(ink: np.ndarray) -> tuple[float, float, float, float]:
    """Whether there is not one piece, the ink outside the largest, whether there is a speck, the number of holes."""
    labels: np.ndarray = ndimage.label(ink)[0]  # type: ignore[index]  (scipy's stub lacks the pair)
    if not ink.any():
        return 1.0, 0.0, 0.0, 0.0
    sizes = np.sort(np.bincount(labels.ravel())[1:])
    paper: np.ndarray = ndimage.label(np.pad(~ink, 1, constant_values=True), _CORNERS)[0]  # type: ignore[index]
    return (
        float(len(sizes) > 1),
        float(1 - sizes[-1] / sizes.sum()),
        float((sizes[:-1] <= SPECK).any()),
        float(paper.max() - 1),
    )
