"""What a network sees of a pixel, and the bits that an image costs it then.

A pixel is one of 256 levels. A network can be shown the bare levels, the levels spread evenly over their bins, or those
through a logit, which widens the bins at paper and ink. Each is a change of variables, so the bits stay comparable.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fm_core.data import Digits, dequantize
from fm_core.grids import uniform_grid
from fm_core.likelihood import bits_per_dimension, log_density
from fm_core.models import UNet

__all__ = ["BLOCK", "VARIANTS", "guarded", "measure", "seen_as", "to_logit"]

VARIANTS = ("levels", "dequantised", "logit")
EDGE, SCALE = 1e-6, 4.0  # of the logit: what is kept off the edges (as FFJORD does), and what brings it to order 1
BLOCK = 50  # digits that share the solver's steps
NOISE_SEED, DATA_SEED = 40_000, 50_000


def seen_as(variant: str, digits: Digits) -> Digits:
    """The digits as a network of a variant sees them: the noise within the bins is drawn once for each image.

    Args:
        variant: one of :data:`VARIANTS`.
        digits: with bare levels.
    """
    if variant == "levels":
        return digits
    generator = torch.Generator(digits.images.device).manual_seed(DATA_SEED)
    spread = dequantize(digits.images, generator)
    images = to_logit(spread)[0] if variant == "logit" else spread
    return Digits(images, digits.labels, f"{digits.source}, {variant}")


def to_logit(y: Tensor) -> tuple[Tensor, Tensor]:
    """Spread pixels through a logit, which gives the bins at paper and ink as much room as all others together.

    ``z = logit(α + (1 - 2α) s) / 4``, ``s = (y + 1) / 2``; α keeps z finite

    Args:
        y: pixels in [-1, 1), ``(B, ...)``.

    Returns:
        z, the shape of y, and ``log |dz/dy|`` of all pixels of an image together, ``(B,)``.

    Source: Dinh et al. 2017, section 4.1; Grathwohl et al. 2019 use α = 1e-6 on MNIST.
    """
    s = EDGE + (1 - 2 * EDGE) * (y.double() + 1) / 2
    slope = math.log((1 - 2 * EDGE) / (2 * SCALE)) - s.log() - (1 - s).log()
    return (s.logit() / SCALE).to(y.dtype), slope.flatten(1).sum(dim=1).to(y.dtype)


def measure(
    model: UNet, images: Tensor, *, bins: str, tolerance: float, euler: int | None, probes: int
) -> dict[str, Any]:
    """Bits per dimension of digits, block by block from fixed seeds: all networks get the same noise and probes.

    Args:
        model: the network.
        images: ``(N, 1, 28, 28)``, bare levels.
        bins: "even", :func:`fm_core.bits_per_dimension` as it is; "centred", the same with each level in the middle of
            its bin; "logit", for a network that was trained so; "none", the density at the bare levels, which is none
            of the image's probability.
        tolerance: of dopri5, relative and absolute.
        euler: steps of Euler's method instead.
        probes: per image.

    Returns:
        ``bits``, their ``standard_error`` due to the probes (None for one) and ``nfe`` by block.
    """
    bits, errors, nfe = [], [], []
    solver = {"method": "euler", "t": uniform_grid(euler)} if euler else {"rtol": tolerance, "atol": tolerance}
    for block, x in enumerate(images.split(BLOCK)):
        generator = torch.Generator(x.device).manual_seed(NOISE_SEED + block)
        options = {"probes": probes, "generator": generator, **solver}
        if bins == "even":
            found = bits_per_dimension(model, x, **options)
            here, error = found.bits, found.standard_error
        else:
            y, extra, level = _placed(x, bins, generator)
            found = log_density(model, y, **options)
            nats_to_bits = 1 / (x[0].numel() * math.log(2))
            here, error = level - (found.log_density + extra) * nats_to_bits, found.standard_error * nats_to_bits
        bits.append(here)
        errors.append(error)
        nfe.append(found.nfe)
    return {
        "bits": [round(v, 5) for v in torch.cat(bits).tolist()],
        "standard_error": [round(v, 5) for v in torch.cat(errors).tolist()] if probes > 1 else None,
        "nfe": nfe,
    }


def _placed(x: Tensor, bins: str, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Images where the network shall see them, log-density that this adds, and bits that a pixel costs more."""
    none = x.new_zeros(len(x))
    if bins == "none":
        return x, none, math.log2(128)
    if bins == "centred":
        u = torch.rand(x.shape, generator=generator, device=x.device)
        return x + (u - 0.5) / 127.5, none, math.log2(127.5)
    return *to_logit(dequantize(x, generator)), math.log2(128)


def guarded(bits: list[float], dimension: int = 784, price: float = 10.0) -> list[float]:
    """Bits per dimension of the flow mixed with the uniform distribution over all images of 256 levels.

    ``-log2((1 - w) 2^(-D b) + w 2^(-8 D)) / D`` with ``w = 2^-price``: a digit that the flow has lost costs little more
    than 8 bits, and every other one ``-log2(1 - w) / D``, less than 2e-6, more than before.

    Args:
        bits: bits per dimension under the flow.
        dimension: D, pixels of an image.
        price: bits per image that name the uniform part.
    """
    ours = torch.tensor(bits, dtype=torch.float64) * dimension - math.log2(1 - 2**-price)
    theirs = torch.full_like(ours, 8 * dimension + price)
    return (-torch.logaddexp2(-ours, -theirs) / dimension).tolist()
