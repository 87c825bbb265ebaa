"""What the classifier makes of images: features, class probabilities, confidence, class balance."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from fm_book.metrics.classifier import CLASSES, SIDE, DigitClassifier, load_classifier

__all__ = [
    "as_features",
    "class_balance",
    "class_probabilities",
    "classes",
    "confidence",
    "features",
]


@torch.no_grad()
def features(images: Tensor, *, network: DigitClassifier | None = None, batch_size: int = 500) -> Tensor:
    """The 64 penultimate features of the shipped classifier, or of another one.

    Pixels are clipped to [-1, 1] first, as when they are shown. Over MNIST's training digits the variances of the
    features add up to 100.

    Args:
        images: ``(N, 1, 28, 28)``, -1 is paper and 1 is ink.
        network: the classifier, on the device of ``images``; the shipped one if left out.
        batch_size: images per forward pass.

    Returns:
        ``(N, 64)``, at least 0, float32, on the device of ``images``.

    Raises:
        ValueError: images of another shape, or values that are not finite.

    Used in the chapter *Can we trust the ruler?*.
    """
    if images.ndim != 4 or images.shape[1:] != (1, SIDE, SIDE):
        raise ValueError(
            f"images: expected shape (N, 1, {SIDE}, {SIDE}), got {tuple(images.shape)}. x[None, None] makes a batch of "
            "one image."
        )
    bad = (~torch.isfinite(images)).flatten(1).any(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"images: expected finite values, got NaN or infinity in {int(bad.sum())} of {len(images)}, the first is "
            f"{int(bad.nonzero()[0])}. Computing a metric on the finite ones would bias it: find out why the sampler "
            "diverged."
        )
    network = _network(images.device) if network is None else network
    return torch.cat([network.features(part.float().clamp(-1, 1)) for part in images.split(batch_size)])


@torch.no_grad()
def class_probabilities(x: Tensor, *, network: DigitClassifier | None = None) -> Tensor:
    """``softmax(f(x))`` of the classifier, ``(N, 10)``.

    Args:
        x: images ``(N, 1, 28, 28)`` or their :func:`features` ``(N, 64)``.
        network: as in :func:`features`.

    Raises:
        ValueError: another shape.
    """
    rows, width = features(x, network=network) if x.ndim == 4 else x, DigitClassifier.num_features
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(
            f"x: expected images (N, 1, {SIDE}, {SIDE}) or features (N, {width}), got shape {tuple(x.shape)}."
        )
    network = _network(rows.device) if network is None else network
    return network.head(rows.float()).softmax(dim=1)


def confidence(x: Tensor) -> Tensor:
    """Largest class probability, ``max_k softmax(f(x))_k``.

    Insensitive to diversity: maximal for a single repeated sample. About 0.1 on pure noise, on which the classifier is
    trained to be uncertain.

    Args:
        x: images ``(N, 1, 28, 28)`` or their :func:`features` ``(N, 64)``.

    Returns:
        ``(N,)``, each from 0.1 to 1.
    """
    return class_probabilities(x).amax(dim=1)


def classes(x: Tensor) -> Tensor:
    """Most probable digit of each image, ``(N,)``, int64, from images or their :func:`features`."""
    return class_probabilities(x).argmax(dim=1)


def class_balance(x: Tensor) -> float:
    """Divergence of the class shares from equal shares.

    ``KL(p || uniform) = sum_k p_k log(10 p_k)`` in nats, with ``p_k`` the share of images classified as k: 0 for equal
    shares, ``log 10 = 2.303`` for one class only. N fair draws have a mean of about ``9 / (2 N)``.

    Args:
        x: images ``(N, 1, 28, 28)``, their :func:`features` ``(N, 64)``, or classes ``(N,)``.

    Raises:
        ValueError: no image, or classes outside 0 to 9.
    """
    found = x if x.ndim == 1 else classes(x)
    if len(found) == 0 or found.min() < 0 or found.max() >= CLASSES:
        span = f" from {found.min():g} to {found.max():g}" if len(found) else ""
        raise ValueError(f"x: expected at least one class from 0 to {CLASSES - 1}, got {len(found)} values{span}.")
    share = torch.bincount(found.long().cpu(), minlength=CLASSES).double() / len(found)
    return float(torch.xlogy(share, share).sum() + math.log(CLASSES))


def as_features(x: Tensor, name: str, least: int = 1) -> Tensor:
    """Images or features to features, float64 on the CPU; ValueError for fewer than ``least`` rows."""
    rows = features(x) if x.ndim == 4 else x
    if rows.ndim != 2 or len(rows) < least:
        raise ValueError(
            f"{name}: expected at least {least} images (N, 1, {SIDE}, {SIDE}) or features (N, D), got shape "
            f"{tuple(x.shape)}."
        )
    return rows.detach().to("cpu", torch.float64)


@cache
def _network(device: torch.device) -> DigitClassifier:
    return load_classifier(device)
