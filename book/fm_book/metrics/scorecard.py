"""All metrics of a set of samples against the shipped reference, with intervals.

The reference is the features of every second test digit of each class, which the classifier has not seen in training.
The other half are *control digits*: real digits that neither classifier nor reference contains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fm_book.metrics.bootstrap import MAX_RESAMPLES, Estimate, bootstrap_interval
from fm_book.metrics.classifier import CLASSIFIER, SIDE
from fm_book.metrics.distances import (
    Moments,
    frechet_distance,
    kernel_interval,
    moments,
    nearest_neighbours,
    precision_recall,
)
from fm_book.metrics.features import LARGEST, class_balance, classes, confidence, features
from fm_core._checks import as_tensor, check_count, check_images, described
from fm_core.checkpoints import load_weights

__all__ = ["Reference", "evaluate_samples", "in_reference", "load_reference"]


@dataclass(frozen=True)
class Reference:
    """What the metrics compare with.

    Attributes:
        features: ``(5001, 64)``, of the test digits that :func:`in_reference` names, in shuffled order: the first n are
            n digits at random. The others are left over as control digits.
        moments: mean and covariance of these features.
        train: mean and covariance of the features of the 60,000 training digits.
    """

    features: Tensor
    moments: Moments
    train: Moments


def load_reference(folder: Path = CLASSIFIER) -> Reference:
    """The reference that comes with the package, or that in a folder of :class:`fm_book.experiments`.

    Raises:
        ValueError: the file is damaged.
    """
    held = load_weights(folder, "reference.safetensors")
    rows = held["features"].float()
    return Reference(rows, moments(rows), Moments(held["mean"], held["covariance"], int(held["count"])))


def in_reference(labels: Tensor) -> Tensor:
    """Which digits of MNIST's test set the reference holds: of each class the first, the third, the fifth ...

    Args:
        labels: ``(N,)``, of the whole test set, in its order.

    Returns:
        ``(N,)`` bool. ``~in_reference(labels)`` are the control digits.

    Raises:
        ValueError: not one row of whole numbers.

    Explained in the chapter *Metrics and their blind spots*.
    """
    whole = isinstance(labels, Tensor) and labels.ndim == 1 and labels.dtype in (torch.uint8, torch.int32, torch.int64)
    if not whole or labels.is_meta or labels.is_sparse or not len(labels) or labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"labels: expected whole numbers from 0 to 9, (N,), got {described(labels)}.")
    number = F.one_hot(labels.long()).cumsum(dim=0)  # (N, 10), how many of each class so far
    return number.gather(1, labels.long()[:, None])[:, 0] % 2 == 1


def evaluate_samples(images: Tensor, *, training: Tensor | None = None, resamples: int = 300) -> dict[str, Estimate]:
    """All metrics of a set of images, each with its bootstrap interval.

    Args:
        images: ``(N, 1, 28, 28)``, N at least 4; 1,000 or more to be of use, and the same N for all that is compared.
        training: training images ``(M, 1, 28, 28)`` on the same device, to look for copies.
        resamples: of the bootstrap; 0 for values without intervals.

    Returns:
        ``frechet`` and ``kernel`` (distances to the reference), ``precision``, ``recall``, ``confidence``,
        ``imbalance`` (of the classes) and, with ``training``, ``neighbour`` (mean distance to the nearest training
        digit, in pixels). Precision, recall and the kernel distance compare with as many
        reference digits as there are images, at most all 5,001.

    Raises:
        ValueError: what :func:`features` refuses, of ``images`` and of ``training``; fewer than 4 images.

    Used by ``python -m fm_book.experiments compare`` and in the chapter *Metrics and their blind spots*.
    """
    shape = ("N", 1, SIDE, SIDE)
    images = as_tensor("images", images, shape, least=4)
    resamples = check_count("resamples", resamples, least=0, most=MAX_RESAMPLES)
    if training is not None:
        training = check_images("training", as_tensor("training", training, shape, like=images), most=LARGEST)
    reference, seen = load_reference(), features(images).cpu()
    some = reference.features[: len(seen)]
    inside = precision_recall(some, seen)

    def interval(statistic: Callable[..., Any], sample: Tensor) -> Estimate:
        return bootstrap_interval(statistic, sample, resamples=resamples)

    card = {
        "frechet": interval(lambda x: frechet_distance(x, reference.moments), seen),
        "kernel": kernel_interval(seen[: len(some)], some, resamples=resamples),
        "precision": interval(torch.mean, inside.fake_inside.double()),
        "recall": interval(torch.mean, inside.real_inside.double()),
        "confidence": interval(torch.mean, confidence(seen)),
        "imbalance": interval(class_balance, classes(seen)),
    }
    if training is not None:
        card["neighbour"] = interval(torch.mean, nearest_neighbours(images, training).distance)
    return card
