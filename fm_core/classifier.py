"""A small digit classifier, trained in seconds: it reads samples aloud, so that legibility becomes a number.

It decides four things. It is small and plain, because it has to be trained inside a chapter and inside a test. Every
training image is shifted by up to two pixels, because generated digits are not centred as carefully as MNIST's. A
quarter of the images is mixed with noise, and the label with "cannot tell": a classifier that has never seen noise
calls it some digit without a doubt, and would praise samples for the noise that a bad solver leaves in them. And
everything random comes from one seed, so that the same digits give the same classifier. Its confidence still is a ruler
with known faults (it is high for a network that draws one perfect digit over and over), which the chapter shows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fm_core.data import Digits

__all__ = ["class_probabilities", "train_classifier"]

CLASSES = 10
SHIFT = 2  # pixels, in each direction
SIDE = 28
NOISY = 4  # every fourth image of a batch is mixed with noise


def train_classifier(
    digits: Digits,
    *,
    steps: int = 400,
    seed: int = 0,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    lr: float = 4e-3,
) -> nn.Module:
    """Train a small convolutional network to name digits.

    ``min_w E[-q · log softmax(f_w(x))]`` by AdamW, the learning rate falling linearly to 0. For three images of four,
    ``x`` is a shifted ``x_1`` and ``q`` its label; for the fourth, ``x = (1 - t) x_0 + t x_1`` with noise ``x_0`` and
    ``t ~ U[0, 1]``, and ``q`` is t times the label plus (1 - t) times one tenth for each class.

    Args:
        digits: images ``(N, 1, 28, 28)`` in [-1, 1] with their labels 0 to 9.
        steps: optimizer steps; 400 on the 4,500 bundled digits are about six passes over them.
        seed: of the weights, the order of the images and their shifts. torch's global random state is left as it was.
        device: where to train; where the digits are, if left out.
        batch_size: images per step.
        lr: learning rate of the first step.

    Returns:
        The network in evaluation mode, without gradients: ``(B, 1, 28, 28)`` to logits ``(B, 10)``. On a CPU, the same
        digits, seed and number of threads give the same weights.

    Raises:
        ValueError: no step, no digit, images of another shape, or labels outside 0 to 9.

    Source: a convolutional network in the manner of LeCun et al. 1998. Used in the chapter *Residual vs. Base*.
    """
    _check(digits, steps)
    device = torch.device(device) if device is not None else digits.images.device
    images, labels = digits.images.to(device), digits.labels.to(device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _build().to(device)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        pick = torch.randint(len(images), (batch_size,), generator=generator).to(device)
        down, right = torch.randint(2 * SHIFT + 1, (2, batch_size), generator=generator).to(device)
        t = torch.rand(batch_size, 1, generator=generator).to(device)
        t[torch.arange(batch_size) % NOISY > 0] = 1.0
        x_0 = torch.randn(batch_size, 1, SIDE, SIDE, generator=generator).to(device)
        x = torch.lerp(x_0, _shifted(images[pick], down, right), t[:, :, None, None]).clamp(-1, 1)
        target = t * F.one_hot(labels[pick], CLASSES) + (1 - t) / CLASSES
        loss = F.cross_entropy(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def class_probabilities(classifier: nn.Module, images: Tensor, *, batch_size: int = 500) -> Tensor:
    """What a classifier makes of images: ``softmax(f(x))``.

    Pixels are clipped to [-1, 1] first, as they are when shown: samples overshoot a little, and what the eye cannot see
    shall not count. The largest of the ten numbers is the classifier's confidence.

    Args:
        classifier: from :func:`train_classifier`.
        images: ``(N, 1, 28, 28)``, on the classifier's device.
        batch_size: images per forward pass.

    Returns:
        ``(N, 10)``, rows that add up to 1.

    Raises:
        ValueError: images of another shape.

    Used in the chapter *Residual vs. Base*.
    """
    if images.ndim != 4 or images.shape[1:] != (1, SIDE, SIDE):
        raise ValueError(
            f"images have shape {tuple(images.shape)}; the classifier takes (N, 1, {SIDE}, {SIDE}). Add the missing "
            "axes, for example x[None, None] for one image."
        )
    parts = [classifier(part.clamp(-1, 1)).softmax(dim=1) for part in images.split(batch_size)]
    return torch.cat(parts)


def _build() -> nn.Sequential:
    return nn.Sequential(
        *_stage(1, 16, stride=2),  # (B, 16, 14, 14)
        *_stage(16, 32),
        nn.MaxPool2d(2),  # (B, 32, 7, 7)
        *_stage(32, 64),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, CLASSES),
    )


def _stage(c_in: int, c_out: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]


def _shifted(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image moved by its own ``(down - SHIFT, right - SHIFT)`` pixels, paper where it left."""
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    line = torch.arange(SIDE, device=images.device)
    wide = F.pad(images[:, 0], [SHIFT] * 4, value=-1.0)  # (B, 32, 32)
    rows = (line + 2 * SHIFT - down[:, None])[:, :, None]  # (B, 28, 1)
    columns = (line + 2 * SHIFT - right[:, None])[:, None, :]  # (B, 1, 28)
    return wide[batch, rows, columns][:, None]


def _check(digits: Digits, steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps={steps}: training takes at least 1 step; try steps=400.")
    shape, n = tuple(digits.images.shape), len(digits.labels)
    if shape != (n, 1, SIDE, SIDE) or n == 0:
        raise ValueError(
            f"digits has images of shape {shape} and {n} labels; the classifier takes (N, 1, {SIDE}, {SIDE}) with one "
            "label each, as load_sample() gives them."
        )
    low, high = int(digits.labels.min()), int(digits.labels.max())
    if low < 0 or high >= CLASSES:
        raise ValueError(f"digits has labels from {low} to {high}; the classes are 0 to {CLASSES - 1}.")
