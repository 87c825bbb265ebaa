"""What the shipped classifier makes of images: features, its confidence, and how evenly it reads the ten digits."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from fm_book.metrics.classifier import CLASSES, SIDE, DigitClassifier, load_classifier

__all__ = ["class_balance", "classes", "confidence", "features"]

BATCH = 500  # images per forward pass


@torch.no_grad()
def features(images: Tensor, *, network: DigitClassifier | None = None) -> Tensor:
    """The 64 numbers from which the shipped classifier decides, or another one.

    Pixels are clipped to [-1, 1] first, as they are when shown. The features are scaled so that, over MNIST's training
    digits, their variances add up to 100.

    Args:
        images: ``(N, 1, 28, 28)``, -1 is paper and 1 is ink, on any device.
        network: the classifier to look through, on the same device; the shipped one if left out.

    Returns:
        ``(N, 64)``, none below 0, float32, on the device of ``images``.

    Raises:
        ValueError: images of another shape, or values that are not finite.

    Used in the chapter *Can we trust the ruler?*.
    """
    if images.ndim != 4 or images.shape[1:] != (1, SIDE, SIDE):
        raise ValueError(
            f"images have shape {tuple(images.shape)}; the classifier reads (N, 1, {SIDE}, {SIDE}). Add the missing "
            "axes, for example x[None, None] for one image."
        )
    if not torch.isfinite(images).all():
        bad = (~torch.isfinite(images)).flatten(1).any(dim=1).sum()
        raise ValueError(
            f"images hold NaN or infinity, in {int(bad)} of {len(images)}; a metric of the rest would flatter. "
            "Find out why the sampler diverged, or drop them and report how many they were."
        )
    network = _network(images.device) if network is None else network
    return torch.cat([network.features(part.float().clamp(-1, 1)) for part in images.split(BATCH)])


def confidence(x: Tensor) -> Tensor:
    """How sure the classifier is of each image: ``max_k softmax(f(x))_k``.

    It measures legibility. It knows nothing of variety or originality, and is highest for one perfect digit drawn for
    ever. On pure noise it is about 0.1, since the classifier has learned to doubt there.

    Args:
        x: images ``(N, 1, 28, 28)`` or their :func:`features` ``(N, 64)``.

    Returns:
        ``(N,)``, each from 0.1 to 1. Average them; :func:`~fm_book.metrics.bootstrap_interval` gives the interval.
    """
    return _logits(x).softmax(dim=1).amax(dim=1)


def classes(x: Tensor) -> Tensor:
    """The digit that the classifier reads in each image, ``(N,)``, int64, from images or their :func:`features`."""
    return _logits(x).argmax(dim=1)


def class_balance(x: Tensor) -> float:
    """How far the ten digits are from being drawn equally often.

    ``KL(p || uniform) = sum_k p_k log(10 p_k)`` in nats, with ``p_k`` the share of the images read as the digit k. It
    is 0 for exactly equal shares and ``log 10 = 2.303`` for one digit only. N fair draws do not reach 0: their mean is
    about ``9 / (2 N)``, since ``2 N KL`` has nearly the chi-square law with nine degrees of freedom.

    Args:
        x: images ``(N, 1, 28, 28)``, their :func:`features` ``(N, 64)``, or classes ``(N,)`` that were read before.

    Raises:
        ValueError: no image, or classes outside 0 to 9.
    """
    read = x if x.ndim == 1 else classes(x)
    if len(read) == 0 or read.min() < 0 or read.max() >= CLASSES:
        raise ValueError(
            f"class_balance takes at least one class from 0 to {CLASSES - 1}, but got {len(read)} values"
            f"{f' from {read.min():g} to {read.max():g}' if len(read) else ''}. Give images, features or labels."
        )
    share = torch.bincount(read.long().cpu(), minlength=CLASSES).double() / len(read)
    return float(torch.xlogy(share, share).sum() + math.log(CLASSES))


def as_features(x: Tensor, name: str, least: int = 1) -> Tensor:
    """Images or features to features, in float64 on the CPU; refuse fewer than ``least`` rows."""
    rows = features(x) if x.ndim == 4 else x
    if rows.ndim != 2 or len(rows) < least:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; needed are at least {least} images (N, 1, {SIDE}, {SIDE}) or their "
            "features (N, D), as fm_book.metrics.features gives them."
        )
    return rows.detach().to("cpu", torch.float64)


@torch.no_grad()
def _logits(x: Tensor) -> Tensor:
    rows = features(x) if x.ndim == 4 else x
    width = DigitClassifier.num_features
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; needed are images (N, 1, {SIDE}, {SIDE}) or features (N, {width})."
        )
    return _network(rows.device).head(rows.float())


@cache
def _network(device: torch.device) -> DigitClassifier:
    return load_classifier(device)
