"""What the classifier makes of images: features, class probabilities, confidence, class balance."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from fm_book.metrics.classifier import CLASSES, SIDE, DigitClassifier, load_classifier
from fm_core._checks import as_tensor, check_count, check_finite, check_images, check_type, described

LARGEST = 100.0  # absolute value of a pixel; beyond it a sampler has diverged, or pixels were not scaled

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
        images: ``(N, 1, 28, 28)``, -1 is paper and 1 is ink. Noise and samples may lie beyond, up to ±100.
        network: the classifier, on the device of ``images``; the shipped one if left out.
        batch_size: images per forward pass.

    Returns:
        ``(N, 64)``, at least 0, float32, on the device of ``images``.

    Raises:
        ValueError: images of another shape, values that are not finite, pixels in [0, 1] or [0, 255].

    Used in the chapter *Metrics and their blind spots*.
    """
    cure = "x[None, None] makes a batch of one image."
    images = as_tensor("images", images, ("N", 1, SIDE, SIDE), cure=cure)
    return _features("images", images, network, check_count("batch_size", batch_size, most=2**31))


@torch.no_grad()
def _features(name: str, images: Tensor, network: DigitClassifier | None = None, batch_size: int = 500) -> Tensor:
    check_images(name, images, most=LARGEST)
    check_type("network", network, DigitClassifier | None, "a DigitClassifier or None")
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
    rows, width = rows_of(x, "x", network=network), DigitClassifier.num_features
    if rows.shape[1] != width:
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
    row = isinstance(x, Tensor) and x.ndim == 1 and not (x.is_complex() or x.is_meta or x.is_sparse)
    found = x if row else classes(x)
    whole = len(found) > 0 and bool((found == found.round()).all())  # NaN is not
    if not whole or found.min() < 0 or found.max() >= CLASSES:
        span = f" from {found.min():g} to {found.max():g}" if len(found) else ""
        raise ValueError(f"x: expected at least one class from 0 to {CLASSES - 1}, got {len(found)} values{span}.")
    share = torch.bincount(found.long().cpu(), minlength=CLASSES).double() / len(found)
    return float(torch.xlogy(share, share).sum() + math.log(CLASSES))


def rows_of(x: Tensor, name: str, least: int = 1, *, network: DigitClassifier | None = None) -> Tensor:
    """Images or features to features, on their device; ValueError for NaN, and for fewer than ``least`` rows."""
    x = as_tensor(name, x, cure=f"Give images (N, 1, {SIDE}, {SIDE}) or features (N, D).")
    if x.ndim not in (2, 4) or len(x) < least or 0 in x.shape or (x.ndim == 4 and x.shape[1:] != (1, SIDE, SIDE)):
        raise ValueError(
            f"{name}: expected at least {least} images (N, 1, {SIDE}, {SIDE}) or features (N, D), got {described(x)}."
        )
    return _features(name, x, network) if x.ndim == 4 else check_finite(name, x)


def as_features(x: Tensor, name: str, least: int = 1) -> Tensor:
    """:func:`rows_of` as float64 on the CPU."""
    return rows_of(x, name, least).detach().to("cpu", torch.float64)


@cache
def _network(device: torch.device) -> DigitClassifier:
    return load_classifier(device)
