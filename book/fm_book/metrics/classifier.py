"""The one digit classifier of this project: it reads samples aloud, and what it sees becomes the metrics' features.

It decides six things. It is small and plain, because it is shipped with the package and has to run on two processor
cores. Every training image is shifted by up to two pixels, because generated digits are not centred as carefully as
MNIST's. A quarter of the images is mixed with noise, and the label with "cannot tell": a classifier that has never seen
noise calls it some digit without a doubt, and would praise samples for the noise that a bad solver leaves in them. But
the label fades only where noise begins to hurt the eye as well: one that fades from the first grain on teaches the
classifier to measure grain that nobody sees, and then its features weigh it more than a missing stroke. Its last layer
but one has only 64 numbers, so that their covariance can be estimated from a thousand digits, and they are scaled so
that over the training digits their variances add up to 100: a squared distance between features then reads as a
percentage of how much real digits differ. And everything random comes from one seed.

The shipped weights are made by ``python -m fm_book.experiments classifier``.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from fm_core.data import Digits

__all__ = ["DigitClassifier", "class_probabilities", "load_classifier", "shipped_tensors", "train_classifier"]

CLASSES = 10
SHIFT = 2  # pixels, in each direction
SIDE = 28
NOISY = 4  # every fourth image of a batch is mixed with noise
LEGIBLE = 0.8  # from this t on the label is kept whole: noise of standard deviation 0.2, a tenth of black to white
VARIANCE = 100.0  # what the variances of the 64 features add up to, over the training digits


class DigitClassifier(nn.Module):
    """A small convolutional network that names digits; ``(B, 1, 28, 28)`` in [-1, 1] to logits ``(B, 10)``.

    Attributes:
        num_features: 64, the width of :meth:`features`; torchmetrics reads it under this name.

    Source: a convolutional network in the manner of LeCun et al. 1998. Used in the chapters *Residual vs. Base* and
    *Can we trust the ruler?*.
    """

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_stage(1, 16, stride=2),  # (B, 16, 14, 14)
            *_stage(16, 32),
            *_stage(32, 32, stride=2),  # (B, 32, 7, 7)
            *_stage(32, 64),
            *_stage(64, 64, stride=2),  # (B, 64, 4, 4)
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, self.num_features, bias=False),
            nn.BatchNorm1d(self.num_features),
            nn.ReLU(),
        )
        self.head = nn.Linear(self.num_features, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer decides from: ``(B, 1, 28, 28)`` to ``(B, 64)``, none below 0."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def load_classifier(device: str | torch.device = "cpu") -> DigitClassifier:
    """The shipped classifier, in evaluation mode, without gradients, in float32.

    Args:
        device: where it lives.

    Raises:
        ValueError: the weights are damaged.

    What it was trained on, and how well it reads, is in its model card, ``book/fm_book/pretrained/classifier/README.md``.
    """
    network = DigitClassifier()
    tensors = shipped_tensors("model.safetensors")
    network.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def shipped_tensors(name: str) -> dict[str, Tensor]:
    """The tensors of a file that is shipped with the classifier, after its hash has been checked.

    Args:
        name: ``"model.safetensors"`` or ``"reference.safetensors"``, in ``book/fm_book/pretrained/classifier``.

    Raises:
        ValueError: the file does not match the hash in ``config.json`` beside it.
    """
    folder = files("fm_book").joinpath("pretrained/classifier")
    content = folder.joinpath(name).read_bytes()
    expected = json.loads(folder.joinpath("config.json").read_text())["sha256"][name]
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise ValueError(
            f"pretrained/classifier/{name} has SHA-256 {digest[:12]}..., but its config.json names {expected[:12]}...: "
            "the file is damaged or not the one that belongs here. Install fm-core again."
        )
    return load(content)


def train_classifier(
    digits: Digits,
    *,
    steps: int = 3000,
    seed: int = 0,
    device: str | torch.device | None = None,
    batch_size: int = 128,
    lr: float = 4e-3,
    legible: float = LEGIBLE,
    progress: bool = False,
) -> DigitClassifier:
    """Train the classifier from scratch.

    ``min_w E[-q · log softmax(f_w(x))]`` by AdamW, the learning rate falling linearly to 0. For three images of four,
    ``x`` is a shifted ``x_1`` and ``q`` its label; for the fourth, ``x = (1 - t) x_0 + t x_1`` with noise ``x_0`` and
    ``t ~ U[0, 1]``, and ``q`` is s times the label plus (1 - s) times a tenth for each class, with
    ``s = min(1, t / legible)``.

    Args:
        digits: images ``(N, 1, 28, 28)`` in [-1, 1] with their labels 0 to 9.
        steps: optimizer steps; 3,000 on the 60,000 digits of MNIST are about six and a half passes over them.
        seed: of the weights, the order of the images and their shifts. torch's global random state is left as it was.
        device: where to train; where the digits are, if left out.
        batch_size: images per step.
        lr: learning rate of the first step.
        legible: the time from which the label is kept whole, in (0, 1]; 0.8 is noise of standard deviation 0.2. With 1
            the classifier is taught to doubt from the first grain on, and its features measure grain.
        progress: show a progress bar.

    Returns:
        The network in evaluation mode, without gradients. On a CPU, the same digits, seed and number of threads give
        the same weights.

    Raises:
        ValueError: no step, no digit, images of another shape, labels outside 0 to 9, or a time that is none.
    """
    _check(digits, steps)
    if not 0 < legible <= 1:
        raise ValueError(f"legible={legible}; it is the time from which labels are kept whole, above 0 and at most 1.")
    device = torch.device(device) if device is not None else digits.images.device
    images, labels = digits.images.to(device), digits.labels.to(device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DigitClassifier().to(device, memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in trange(steps, desc="classifier", disable=not progress):
        pick = torch.randint(len(images), (batch_size,), generator=generator).to(device)
        down, right = torch.randint(2 * SHIFT + 1, (2, batch_size), generator=generator).to(device)
        t = torch.rand(batch_size, 1, generator=generator).to(device)
        t[torch.arange(batch_size) % NOISY > 0] = 1.0
        x_0 = torch.randn(batch_size, 1, SIDE, SIDE, generator=generator).to(device)
        x = torch.lerp(x_0, _shifted(images[pick], down, right), t[:, :, None, None]).clamp(-1, 1)
        sure = (t / legible).clamp(max=1)
        target = sure * F.one_hot(labels[pick], CLASSES) + (1 - sure) / CLASSES
        loss = F.cross_entropy(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return _scaled(network.eval().requires_grad_(False), images)


@torch.no_grad()
def class_probabilities(classifier: nn.Module, images: Tensor, *, batch_size: int = 500) -> Tensor:
    """What a classifier makes of images: ``softmax(f(x))``.

    Pixels are clipped to [-1, 1] first, as they are when shown: samples overshoot a little, and what the eye cannot see
    shall not count. The largest of the ten numbers is the classifier's confidence.

    Args:
        classifier: from :func:`load_classifier` or :func:`train_classifier`.
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


def _stage(c_in: int, c_out: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]


@torch.no_grad()
def _scaled(network: DigitClassifier, images: Tensor) -> DigitClassifier:
    """The same function of the image, with features whose variances add up to VARIANCE."""
    features = torch.cat([network.features(part) for part in images.split(500)])
    variance = features.double().var(dim=0, correction=0).sum().item()
    factor = (VARIANCE / variance) ** 0.5 if variance > 0 else 1.0
    norm = network.body[-2]
    norm.weight *= factor  # max(0, c y) = c max(0, y)
    norm.bias *= factor
    network.head.weight /= factor
    return network


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
        raise ValueError(f"steps={steps}: training takes at least 1 step; try steps=3000.")
    shape, n = tuple(digits.images.shape), len(digits.labels)
    if shape != (n, 1, SIDE, SIDE) or n == 0:
        raise ValueError(
            f"digits has images of shape {shape} and {n} labels; the classifier takes (N, 1, {SIDE}, {SIDE}) with one "
            "label each, as load_sample() gives them."
        )
    low, high = int(digits.labels.min()), int(digits.labels.max())
    if low < 0 or high >= CLASSES:
        raise ValueError(f"digits has labels from {low} to {high}; the classes are 0 to {CLASSES - 1}.")
