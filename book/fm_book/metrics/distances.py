"""Distances between sets of features: Fréchet, kernel, precision and recall, nearest neighbours.

Computed in float64 on this book's features, so their values compare with each other and never with an FID or KID from a
paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_book.metrics.bootstrap import MAX_RESAMPLES, Estimate, bootstrap_interval
from fm_book.metrics.features import as_features
from fm_core._checks import as_tensor, check_count, check_seed, described

__all__ = [
    "Moments",
    "Neighbours",
    "PrecisionRecall",
    "frechet_distance",
    "kernel_distance",
    "kernel_interval",
    "moments",
    "nearest_neighbours",
    "precision_recall",
]

CHUNK = 1000  # rows of a matrix of distances at a time
MAX_SUBSET = 50_000  # its square in float64 takes 20 GB
TINY = 1e-12  # rounding of a squared distance in float64, relative to the largest squared norm


@dataclass(frozen=True)
class Moments:
    """Mean ``(D,)`` and covariance ``(D, D)`` of features, float64, and the number of images they come from."""

    mean: Tensor
    covariance: Tensor
    count: int

    def __post_init__(self) -> None:
        mean = as_tensor("mean", self.mean, ("D",), finite=True)
        as_tensor("covariance", self.covariance, (len(mean), len(mean)), finite=True)
        check_count("count", self.count)


def moments(x: Tensor, name: str = "x") -> Moments:
    """What the Fréchet distance needs of a set: mean, covariance (divided by N - 1) and N.

    Args:
        x: images ``(N, 1, 28, 28)`` or features ``(N, D)``, N at least 2.
        name: of ``x`` in an error.
    """
    rows = as_features(x, name, least=2)
    return Moments(rows.mean(dim=0), rows.T.cov(), len(rows))


def frechet_distance(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """Fréchet distance between two sets, each taken for a Gaussian.

    ``|m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^{1/2})`` with the means m and covariances S of the features. It is a
    squared distance. With this project's features, 100 is the distance of all real digits from a single point, their
    mean, so a value reads as a percentage of the real digits' variance.

    It is biased: for two draws from the same distribution it is not 0, and falls like 1/N. Compare at equal N only.

    Args:
        a, b: images ``(N, 1, 28, 28)``, features ``(N, D)``, or :class:`Moments`; N at least 2, and well above D to be
            of use.

    Raises:
        ValueError: fewer than two images, NaN, or features of different widths.

    Source: Dowson and Landau 1982; as a metric of samples, Heusel et al. 2017. Explained in the chapter
    *Metrics and their blind spots*.
    """
    a, b = (x if isinstance(x, Moments) else moments(x, name) for x, name in ((a, "a"), (b, "b")))
    _check_width(len(a.mean), len(b.mean))
    # tr (A B)^(1/2) is the sum of the roots of the eigenvalues of A B, which are real and not negative
    roots = torch.linalg.eigvals(a.covariance @ b.covariance).real.clamp(min=0).sqrt()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * roots.sum()
    return float((a.mean - b.mean).square().sum() + spread)


def kernel_distance(a: Tensor, b: Tensor, *, subset_size: int = 2000, subsets: int = 10, seed: int = 0) -> float:
    """Kernel distance between two sets: the squared maximum mean discrepancy with a cubic kernel.

    ``E k(a, a') + E k(b, b') - 2 E k(a, b)`` with ``k(x, y) = (x · y / D + 1)³``, over pairs of *different* images. It
    sees means, covariances and third moments, and has no bias: two draws from the same distribution give 0 on average,
    and so it may come out below 0.

    Sets of equal size up to ``subset_size`` are compared whole, and the value is exact. Otherwise it is the mean over
    random subsets.

    Args:
        a, b: images ``(N, 1, 28, 28)`` or features ``(N, D)``.
        subset_size: most images compared at once, 2 to 50,000; memory grows with its square.
        subsets: how many subsets are averaged, at most 100,000.
        seed: of the subsets.

    Raises:
        ValueError: fewer than two images, or features of different widths.

    Source: Bińkowski et al. 2018, section 4. Explained in the chapter *Metrics and their blind spots*.
    """
    a, b = as_features(a, "a", least=2), as_features(b, "b", least=2)
    _check_width(a.shape[1], b.shape[1])
    subset_size = check_count("subset_size", subset_size, least=2, most=MAX_SUBSET)
    subsets, seed = check_count("subsets", subsets, most=MAX_RESAMPLES), check_seed("seed", seed)
    size = min(len(a), len(b), subset_size)
    if len(a) == len(b) == size:
        return _discrepancy(a, b)
    generator = torch.Generator().manual_seed(seed)
    found = [
        _discrepancy(*(x[torch.randperm(len(x), generator=generator)[:size]] for x in (a, b))) for _ in range(subsets)
    ]
    return sum(found) / subsets


def kernel_interval(a: Tensor, b: Tensor, *, resamples: int = 300, level: float = 0.95, seed: int = 0) -> Estimate:
    """The kernel distance with its bootstrap interval over ``a``; ``b`` is held fixed.

    The same as ``bootstrap_interval(lambda x: kernel_distance(x, b), a)`` for two sets of equal size, in a fraction of
    the time: each kernel is computed once, and a resample only counts how often each image was drawn.

    Args:
        a, b: images ``(N, 1, 28, 28)`` or features ``(N, D)``; memory grows with the square of N, 0.6 GB at 5,000.
        resamples, level, seed: as in :func:`~fm_book.metrics.bootstrap_interval`.

    Raises:
        ValueError: fewer than two images, or features of different widths.
    """
    a, b = as_features(a, "a", least=2), as_features(b, "b", least=2)
    _check_width(a.shape[1], b.shape[1])
    n, m = len(a), len(b)
    own = _kernel(a, a)  # (N, N)
    cross = _kernel(a, b).mean(dim=1)  # (N,)
    other = _kernel(b, b)
    constant = (other.sum() - other.diagonal().sum()) / (m * (m - 1))

    def distance(drawn: Tensor) -> Tensor:
        count = torch.bincount(drawn, minlength=n).double()
        pairs = count @ own @ count - count @ own.diagonal()  # of different draws
        return pairs / (n * (n - 1)) + constant - 2 * count @ cross / n

    return bootstrap_interval(distance, torch.arange(n), resamples=resamples, level=level, seed=seed)


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
        ValueError: k below 1, a set of no more than k images, NaN, or features of different widths.

    Source: Kynkäänniemi et al. 2019, equations 1 and 2. Explained in the chapter *Metrics and their blind spots*.
    """
    real, fake, k = as_features(real, "real"), as_features(fake, "fake"), check_count("k", k)
    if real.shape[1] != fake.shape[1] or not k < min(len(real), len(fake)):
        raise ValueError(
            "real, fake: expected more than k images or features (N, D) of one width in each, got "
            f"{tuple(real.shape)}, {tuple(fake.shape)} and k={k}."
        )
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
        ValueError: an empty set, NaN, or rows of different sizes.
    """
    x = as_tensor("x", x, ("N", ...), finite=True)
    reference = as_tensor("reference", reference, ("M", ...), finite=True)
    rows, others = x.reshape(len(x), -1).float(), reference.reshape(len(reference), -1).float()
    if rows.shape[1] != others.shape[1] or x.device != reference.device:
        raise ValueError(
            f"x, reference: expected two sets of rows of one size on one device, got {described(x)} on {x.device} and "
            f"{described(reference)} on {reference.device}."
        )
    norm = others.square().sum(dim=1)
    index = torch.cat([(norm - 2 * part @ others.T).argmin(dim=1) for part in rows.split(CHUNK)])
    return Neighbours((rows - others[index]).norm(dim=1), index)  # differences: a copy is at distance 0 exactly


def _discrepancy(a: Tensor, b: Tensor) -> float:
    """Squared maximum mean discrepancy over pairs of different rows."""
    n, m, own, other = len(a), len(b), _kernel(a, a), _kernel(b, b)
    within = (own.sum() - own.trace()) / (n * (n - 1)) + (other.sum() - other.trace()) / (m * (m - 1))
    return float(within - 2 * _kernel(a, b).mean())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _check_width(a: int, b: int) -> None:
    if a != b:
        raise ValueError(f"a, b: expected features of one classifier, got {a} and {b} features.")


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
