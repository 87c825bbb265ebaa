"""MNIST classifier whose penultimate features the metrics use.

Training images are shifted by up to two pixels, since samples are not centred as carefully as MNIST. A quarter of them
is mixed with noise: a classifier that has never seen noise is confident on it. Labels are smoothed only below t = 0.8;
smoothing at every noise level makes the features sensitive to imperceptible noise. The 64 features are few enough for
their covariance to be estimated from a thousand digits, and scaled so that over the training digits their variances add
up to 100. The shipped weights are made by ``python -m fm_book.experiments classifier``.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from fm_core._checks import check_count, check_images, check_number, check_seed, check_type
from fm_core.checkpoints import load_weights
from fm_core.data import Digits
from fm_core.environment import resolve_device

__all__ = ["CLASSIFIER", "DigitClassifier", "load_classifier", "train_classifier"]

CLASSIFIER = Path(str(files("fm_book") / "pretrained" / "classifier"))

CLASSES = 10
SHIFT = 2  # pixels, in each direction
SIDE = 28
NOISY = 4  # every fourth image of a batch is mixed with noise
LABEL_NOISE_CUTOFF = 0.8  # labels are smoothed below this t, noise of standard deviation 0.2
VARIANCE = 100.0  # what the variances of the 64 features add up to, over the training digits


class DigitClassifier(nn.Module):
    """A small convolutional network that names digits; ``(B, 1, 28, 28)`` in [-1, 1] to logits ``(B, 10)``.

    Attributes:
        num_features: 64, the width of :meth:`features`; torchmetrics reads it under this name.

    Source: a convolutional network in the manner of LeCun et al. 1998. Used in the chapters *Residual vs. Base* and
    *Metrics and their blind spots*.
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


def load_classifier(device: str | torch.device = "cpu", *, folder: Path = CLASSIFIER) -> DigitClassifier:
    """The shipped classifier, in evaluation mode, without gradients, in float32.

    Args:
        device: where it goes.
        folder: of its files; the shipped ones if left out.

    Raises:
        CheckpointError: the weights are damaged.

    Data, recipe and accuracy are in its model card, ``book/fm_book/pretrained/classifier/README.md``.
    """
    network = DigitClassifier()
    tensors = load_weights(folder, "model.safetensors")
    network.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    return network.to(resolve_device(device), memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]


def train_classifier(
    digits: Digits,
    *,
    steps: int = 3000,
    seed: int = 0,
    device: str | torch.device | None = None,
    batch_size: int = 128,
    lr: float = 4e-3,
    label_noise_cutoff: float = LABEL_NOISE_CUTOFF,
    progress: bool = False,
) -> DigitClassifier:
    """Train the classifier from scratch.

    ``min_w E[-q · log softmax(f_w(x))]`` by AdamW, the learning rate falling linearly to 0. For three images of four,
    ``x`` is a shifted ``x_1`` and ``q`` its label; for the fourth, ``x = (1 - t) x_0 + t x_1`` with noise ``x_0`` and
    ``t ~ U[0, 1]``, and ``q`` is s times the label plus (1 - s) times a tenth for each class, with
    ``s = min(1, t / label_noise_cutoff)``.

    Args:
        digits: images ``(N, 1, 28, 28)`` in [-1, 1] with their labels 0 to 9.
        steps: optimizer steps, at most 10⁷; 3,000 on the 60,000 digits of MNIST are six and a half passes over them.
        seed: of the weights, the order of the images and their shifts. torch's global random state is left as it was.
        device: where to train; where the digits are, if left out.
        batch_size: images per step.
        lr: learning rate of the first step.
        label_noise_cutoff: the time from which labels are kept whole, in (0, 1].
        progress: show a progress bar.

    Returns:
        The network in evaluation mode, without gradients. On a CPU, the same digits, seed and number of threads give
        the same weights.

    Raises:
        ValueError: no step, no digit, images of another shape or not in [-1, 1], labels outside 0 to 9, or a cutoff
            outside (0, 1].
    """
    _check(digits)
    steps, seed = check_count("steps", steps, most=10**7), check_seed("seed", seed)
    batch_size, lr = check_count("batch_size", batch_size, most=10**5), check_number("lr", lr, above=0, most=10)
    label_noise_cutoff = check_number("label_noise_cutoff", label_noise_cutoff, above=0, most=1)
    device = resolve_device(device) if device is not None else digits.images.device
    images, labels = digits.images.to(device), digits.labels.to(device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DigitClassifier()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  (torch's stub lacks this form)
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
        sure = (t / label_noise_cutoff).clamp(max=1)
        target = sure * F.one_hot(labels[pick], CLASSES) + (1 - sure) / CLASSES
        loss = F.cross_entropy(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return _scaled(network.eval().requires_grad_(False), images)


def _stage(c_in: int, c_out: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
    ]


@torch.no_grad()
def _scaled(network: DigitClassifier, images: Tensor) -> DigitClassifier:
    """The same function of the image, with features whose variances add up to VARIANCE."""
    features = torch.cat([network.features(part) for part in images.split(500)])
    variance = features.cpu().double().var(dim=0, correction=0).sum().item()
    factor = (VARIANCE / variance) ** 0.5 if variance > 0 else 1.0
    for p in network.body[-2].parameters():  # of the normalisation: max(0, c y) = c max(0, y)
        p *= factor
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


def _check(digits: Digits) -> None:
    check_type("digits", digits, Digits, "Digits, images with their labels")
    shape, n = tuple(digits.images.shape), len(digits.labels)
    if shape != (n, 1, SIDE, SIDE) or n == 0:
        raise ValueError(
            f"digits: expected images (N, 1, {SIDE}, {SIDE}) with one label each, got shape {shape} and {n} labels."
        )
    low, high = int(digits.labels.min()), int(digits.labels.max())
    if low < 0 or high >= CLASSES:
        raise ValueError(f"digits: expected labels from 0 to {CLASSES - 1}, got {low} to {high}.")
    check_images("digits.images", digits.images, most=1)
