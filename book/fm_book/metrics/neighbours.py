"""What only neighbours tell: precision and recall, and whether samples are copies of training digits.

Distances come from products of matrices, which is fast and loses digits where two images are nearly equal. So copies
are taken care of: the nearest neighbour's distance is computed once more from the difference, exactly 0 for a copy, and
a ball counts what lies on its edge within rounding as inside, so that an image is always inside its own ball.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_book.metrics.features import features

__all__ = ["Neighbours", "PrecisionRecall", "nearest_neighbours", "precision_recall"]

CHUNK = 1000  # rows of a matrix of distances at a time
TINY = 1e-12  # rounding of a squared distance in float64, relative to the largest squared norm


@dataclass(frozen=True)
class PrecisionRecall:
    """Share of the fake images that could be real, share of the real ones that could be fake, and the votes.

    Attributes:
        precision, recall: from 0 to 1.
        fake_inside: ``(N,)`` bool on the CPU, which fake images lie among the real ones; ``precision`` is its mean.
        real_inside: ``(M,)`` bool on the CPU, which real images lie among the fake ones; ``recall`` is its mean.
    """

    precision: float
    recall: float
    fake_inside: Tensor
    real_inside: Tensor


@dataclass(frozen=True)
class Neighbours:
    """For each row, ``distance (N,)`` to its nearest neighbour in the reference and that neighbour's ``index (N,)``."""

    distance: Tensor
    index: Tensor


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall: is each image within the other set's balls?

    Around each image of a set lies a ball that reaches its k-th nearest neighbour in the same set; together the balls
    are the region that the set covers. Precision is the share of fake images in the real region, recall the share of
    real images in the fake region. Both depend on N, since balls shrink where a set is dense: use equal N for both sets
    and for all that is compared.

    For an interval, average the votes: ``bootstrap_interval(torch.mean, result.fake_inside.double())``. Both regions
    are then held fixed, since a resampled set holds copies, whose balls collapse.

    Args:
        real, fake: images ``(N, 1, 28, 28)`` or features ``(N, D)``.
        k: which neighbour a ball reaches; 3 in the source.

    Raises:
        ValueError: k below 1, a set of no more than k images, or features of different widths.

    Source: Kynkäänniemi et al. 2019, equations 1 and 2. Explained in the chapter *Can we trust the ruler?*.
    """
    real, fake = (features(x) if x.ndim == 4 else x for x in (real, fake))
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or not 1 <= k < min(len(real), len(fake)):
        raise ValueError(
            f"real has shape {tuple(real.shape)}, fake {tuple(fake.shape)} and k={k}; needed are features (N, D) of "
            "one width, or images, in each set more than k, and k at least 1."
        )
    real, fake = real.double().cpu(), fake.double().cpu()
    fake_inside, real_inside = _covered(fake, real, k), _covered(real, fake, k)
    precision, recall = (inside.double().mean().item() for inside in (fake_inside, real_inside))
    return PrecisionRecall(precision, recall, fake_inside, real_inside)


def nearest_neighbours(x: Tensor, reference: Tensor) -> Neighbours:
    """The most similar reference image of each image: does a network repeat what it was trained on?

    Distances are between the rows as they are given: pass images to compare pixels, or :func:`features` of both to
    compare what the classifier sees. In pixels, -1 to 1, divide by ``sqrt(784)`` for the root mean square difference.

    Small distances alone prove nothing, since some digits (most ones) are alike: compare with the distances of *unseen*
    real digits to the same reference.

    Args:
        x: ``(N, ...)``.
        reference: ``(M, ...)``, on the same device, usually all training images.

    Raises:
        ValueError: an empty set, or rows of different sizes.
    """
    rows, others = x.flatten(1).float(), reference.flatten(1).float()
    if 0 in (len(rows), len(others)) or rows.shape[1] != others.shape[1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and reference {tuple(reference.shape)}; needed are two sets that are not "
            "empty, of images or of features alike."
        )
    norm = others.square().sum(dim=1)
    index = torch.cat([(norm - 2 * part @ others.T).argmin(dim=1) for part in rows.split(CHUNK)])
    return Neighbours((rows - others[index]).norm(dim=1), index)  # differences: a copy is at distance 0 exactly


def _covered(points: Tensor, centres: Tensor, k: int) -> Tensor:
    """Which points ``(N, D)`` lie in the ball of at least one centre ``(M, D)``."""
    rounding = TINY * max(centres.square().sum(dim=1).max(), points.square().sum(dim=1).max())
    radius = torch.cat(
        [_squared(part, centres).topk(k + 1, largest=False).values[:, k] for part in centres.split(CHUNK)]
    )  # the nearest is the centre itself
    return torch.cat([(_squared(part, centres) <= radius + rounding).any(dim=1) for part in points.split(CHUNK)])


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances ``(N, M)`` between the rows of a and b, with the error of float64 times their squared norms."""
    return torch.addmm(a.square().sum(dim=1)[:, None] + b.square().sum(dim=1), a, b.T, alpha=-2)
