"""Train the metrics' classifier and put it into the package with its reference statistics.

Weights are stored in half precision; the reference is computed with the weights as they are shipped. A second
classifier, with labels smoothed at all noise levels, is trained for comparison and discarded: its sensitivity to
imperceptible noise is recorded as the reason for the recipe.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save

from fm_book.metrics import class_probabilities, features, frechet_distance, in_reference, moments
from fm_book.metrics.classifier import (
    CLASSIFIER,
    DigitClassifier,
    load_classifier,
    train_classifier,
)
from fm_book.records import write_record
from fm_core._files import to_json
from fm_core.checkpoints import write_atomically
from fm_core.data import Digits, fingerprint, load_mnist
from fm_core.environment import provenance, resolve_device
from fm_core.models import count_parameters

__all__ = ["TrainClassifier"]

NOISE_STD, NOISY_DIGITS = (
    0.02,
    1000,
)  # imperceptible pixel noise (2.5 of 255 grey levels), digits that carry it


@dataclass(frozen=True)
class TrainClassifier:
    """Train the classifier of the metrics on MNIST, and publish it with the reference statistics.

    Attributes:
        steps: optimizer steps.
        seed: of the weights, the order of the images, their shifts and the noise.
        device: "auto", "cpu", "cuda", ...
        folder: where the files go; the package's own if left out.
    """

    name: ClassVar[str] = "classifier"
    steps: int = 3000
    seed: int = 0
    device: str = "auto"
    folder: Path = CLASSIFIER

    def settings(self) -> dict[str, Any]:
        """What decides the recorded numbers, JSON-ready."""
        return {
            "steps": self.steps,
            "seed": self.seed,
            "grain": NOISE_STD,
            "grainy_digits": NOISY_DIGITS,
        }

    def run(self) -> str:
        device = resolve_device(self.device)
        made = provenance(device)  # now: writing the files below changes the checkout
        digits = {split: load_mnist(split=split, device=device) for split in ("train", "test")}
        began = time.perf_counter()
        network = train_classifier(digits["train"], steps=self.steps, seed=self.seed, progress=True)
        seconds = time.perf_counter() - began
        full = {split: _accuracy(network, held) for split, held in digits.items()}
        smoothed = train_classifier(
            digits["train"], steps=self.steps, seed=self.seed, label_noise_cutoff=1.0, progress=True
        )
        contents = {"model.safetensors": _weights(network)}
        _write(self.folder, contents, {})
        shipped = load_classifier(device, folder=self.folder)
        facts = {
            "steps": self.steps,
            "batch_size": 128,
            "seed": self.seed,
            "parameters": count_parameters(network),
            "data": {split: {"source": d.source, "sha256": fingerprint(d.images)} for split, d in digits.items()},
            "test_accuracy": _accuracy(shipped, digits["test"]),
            "train_accuracy": _accuracy(shipped, digits["train"]),
            "test_accuracy_before_rounding_to_half": full["test"],
            "test_confidence": _confidence(shipped, digits["test"]),
            "train_confidence": _confidence(shipped, digits["train"]),
            "seconds": seconds,
        }
        contents["reference.safetensors"] = _reference(digits, shipped)
        _write(self.folder, contents, facts | made)
        write_atomically(self.folder / "README.md", _card(facts, contents, made).encode())
        grain = {
            name: {
                "test_accuracy": _accuracy(one, digits["test"]),
                **_noise_sensitivity(one, digits["test"]),
            }
            for name, one in {
                "shipped": shipped,
                "doubts_from_the_first_grain_on": smoothed,
            }.items()
        }
        path = write_record(
            "classifier",
            made | facts | {"grain": grain},
            config=self.settings(),
            device=self.device,
        )
        return f"test accuracy {facts['test_accuracy']:.4f}, recorded in {path}"


def _weights(network: DigitClassifier) -> bytes:
    state = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    return save(
        {name: t.half() if t.is_floating_point() else t for name, t in state.items()},
        {"format": "pt"},
    )


def _write(folder: Path, contents: dict[str, bytes], facts: dict[str, Any]) -> None:
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    for name, content in contents.items():
        write_atomically(folder / name, content)
    config = to_json({"sha256": hashes, "training": facts}, indent=2) + "\n"
    write_atomically(folder / "config.json", config.encode())


def _reference(digits: dict[str, Digits], network: DigitClassifier) -> bytes:
    train, test = moments(features(digits["train"].images, network=network)), digits["test"]
    held = features(test.images[in_reference(test.labels)], network=network).cpu()
    shuffled = held[torch.randperm(len(held), generator=torch.Generator().manual_seed(0))]
    count = torch.tensor(train.count)
    return save(
        {
            "mean": train.mean,
            "covariance": train.covariance,
            "count": count,
            "features": shuffled.half(),
        }
    )


def _accuracy(network: DigitClassifier, digits: Digits) -> float:
    found = class_probabilities(digits.images, network=network).argmax(dim=1)
    return (found == digits.labels).double().mean().item()


def _confidence(network: DigitClassifier, digits: Digits) -> float:
    return class_probabilities(digits.images, network=network).amax(dim=1).double().mean().item()


def _noise_sensitivity(network: DigitClassifier, test: Digits) -> dict[str, float]:
    """Fréchet distances to the reference digits under this network: control digits, and the same with pixel noise."""

    seen = partial(features, network=network)
    inside = in_reference(test.labels)
    generator = torch.Generator().manual_seed(0)
    pick = torch.randperm(int((~inside).sum()), generator=generator)[:NOISY_DIGITS]
    control = test.images[~inside][pick.to(inside.device)]
    grain = NOISE_STD * torch.randn(control.shape, generator=generator).to(control.device)
    reference = moments(seen(test.images[inside]))
    return {
        "frechet_real": frechet_distance(seen(control), reference),
        "frechet_grain": frechet_distance(seen(control + grain), reference),
    }


def _card(facts: dict[str, Any], contents: dict[str, bytes], made: dict[str, Any]) -> str:
    size = {name: len(content) / 1e3 for name, content in contents.items()}
    versions = ", ".join(f"{k} {v}" for k, v in made["versions"].items())
    return f"""# Digit classifier

The small convolutional network that the metrics of this book look through. Load it with `fm_core.load_classifier()`;
`fm_book.metrics` does so by itself. This card is written by `python -m fm_book.experiments classifier`.

| | |
| --- | --- |
| network | five 3×3 convolutions, then 64 features, then ten classes; {facts["parameters"]:,} parameters |
| data | {facts["data"]["train"]["source"]}; SHA-256 `{facts["data"]["train"]["sha256"]}` |
| recipe | AdamW, lr 0.004 falling linearly to 0, {facts["steps"]:,} steps of {facts["batch_size"]}, shifts of up to \
two pixels, every fourth image mixed with noise and, where t < 0.8, its label with "cannot tell", seed {facts["seed"]} |
| test accuracy | {facts["test_accuracy"]:.2%} on the official test digits, as shipped \
({facts["test_accuracy_before_rounding_to_half"]:.2%} before rounding to half precision) |
| training accuracy | {facts["train_accuracy"]:.2%} |
| mean confidence | {facts["test_confidence"]:.4f} on test digits, {facts["train_confidence"]:.4f} on training digits |
| device | {made["device"]} |
| time | {facts["seconds"]:,.0f} s, on a machine that did other work at the same time |
| code | commit `{made["git_commit"]}`; {versions} |
| weights | `model.safetensors`, half precision, {size["model.safetensors"]:.0f} kB |
| reference | `reference.safetensors`, {size["reference.safetensors"]:.0f} kB: features of every second test digit of \
each class, and mean and covariance of the features of all training digits |

**The training images** were recovered from PNG copies of MNIST and differ a little from the official files; the chapter
*Residual vs. Base* says by how much. The test images are the official ones.

**Limits.** For metrics of generated MNIST digits, for teaching. It assigns one of ten classes to anything and is more
confident on the digits it was trained on than on others. The chapter *Metrics and their blind spots* shows
what its metrics see and what they do not. Not meant to recognise handwriting where it matters.
"""
