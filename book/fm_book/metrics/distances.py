"""Two distances between sets of features: Fréchet's, which sees means and covariances, and the kernel distance.

Both are torchmetrics' own, in float64, given features of this project's classifier in place of the Inception network's.
So their values are on a scale of their own: compare them with each other, never with an FID or KID from a paper.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance, poly_kernel

from fm_book.metrics.bootstrap import Interval, bootstrap_interval
from fm_book.metrics.features import as_features

__all__ = ["Moments", "frechet_distance", "kernel_distance", "kernel_interval", "moments"]


@dataclass(frozen=True)
class Moments:
    """Mean ``(D,)`` and covariance ``(D, D)`` of features, float64, and the number of images they come from."""

    mean: Tensor
    covariance: Tensor
    count: int


def moments(x: Tensor) -> Moments:
    """What the Fréchet distance needs of a set: mean, covariance (divided by N - 1) and N.

    Args:
        x: images ``(N, 1, 28, 28)`` or features ``(N, D)``, N at least 2.
    """
    rows = as_features(x, "x", least=2)
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
        ValueError: fewer than two images, or features of different widths.

    Source: Dowson and Landau 1982; as a metric of samples, Heusel et al. 2017. Explained in the chapter
    *Can we trust the ruler?*.
    """
    a, b = (x if isinstance(x, Moments) else as_features(x, name, least=2) for x, name in ((a, "a"), (b, "b")))
    width = _same_width(a, b)
    metric = FrechetInceptionDistance(feature=_Given(width))
    for x, real in ((a, True), (b, False)):
        known = isinstance(x, Moments)
        metric.update(torch.zeros(0, width, dtype=torch.float64) if known else x, real=real)
        if known:  # torchmetrics keeps sums; these are the sums that give these moments
            part = "real" if real else "fake"
            mean, n = x.mean, x.count
            setattr(metric, f"{part}_features_sum", mean * n)
            setattr(metric, f"{part}_features_cov_sum", x.covariance * (n - 1) + n * torch.outer(mean, mean))
            setattr(metric, f"{part}_features_num_samples", torch.tensor(n))
    return float(metric.compute())


def kernel_distance(a: Tensor, b: Tensor, *, subset_size: int = 2000, subsets: int = 10, seed: int = 0) -> float:
    """Kernel distance between two sets: the squared maximum mean discrepancy with a cubic kernel.

    ``E k(a, a') + E k(b, b') - 2 E k(a, b)`` with ``k(x, y) = (x · y / D + 1)³``, over pairs of *different* images. It
    sees means, covariances and third moments, and has no bias: two draws from the same distribution give 0 on average,
    and so it may come out below 0.

    Sets of equal size up to ``subset_size`` are compared whole, and the value is exact. Otherwise it is the mean over
    random subsets.

    Args:
        a, b: images ``(N, 1, 28, 28)`` or features ``(N, D)``.
        subset_size: most images compared at once; memory grows with its square.
        subsets: how many subsets are averaged.
        seed: of the subsets. torch's global random state is left as it was.

    Raises:
        ValueError: fewer than two images, or features of different widths.

    Source: Bińkowski et al. 2018, section 4. Explained in the chapter *Can we trust the ruler?*.
    """
    a, b = as_features(a, "a", least=2), as_features(b, "b", least=2)
    width = _same_width(a, b)
    size = min(len(a), len(b), subset_size)
    count = 1 if len(a) == len(b) == size else subsets
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(feature=_Given(width), subsets=count, subset_size=size)
        metric.update(a, real=True)
        metric.update(b, real=False)
        return float(metric.compute()[0])


def kernel_interval(a: Tensor, b: Tensor, *, resamples: int = 300, level: float = 0.95, seed: int = 0) -> Interval:
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
    _same_width(a, b)
    n, m = len(a), len(b)
    own = poly_kernel(a, a)  # (N, N)
    cross = poly_kernel(a, b).mean(dim=1)  # (N,)
    other = poly_kernel(b, b)
    constant = (other.sum() - other.diagonal().sum()) / (m * (m - 1))

    def distance(drawn: Tensor) -> Tensor:
        count = torch.bincount(drawn, minlength=n).double()
        pairs = count @ own @ count - count @ own.diagonal()  # of different draws, as torchmetrics counts them
        return pairs / (n * (n - 1)) + constant - 2 * count @ cross / n

    return bootstrap_interval(distance, torch.arange(n), resamples=resamples, level=level, seed=seed)


class _Given(nn.Module):
    """For torchmetrics, a feature extractor; it is given features, so there is nothing left to extract."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def _same_width(a: Tensor | Moments, b: Tensor | Moments) -> int:
    width_a, width_b = (x.mean.shape[0] if isinstance(x, Moments) else x.shape[1] for x in (a, b))
    if width_a != width_b:
        raise ValueError(f"a has {width_a} features and b has {width_b}; both must come from the same classifier.")
    return width_a
