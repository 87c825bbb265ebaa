"""What classifier-free guidance does to drawn digits: accuracy, quality and variety against its scale and the steps.

The published network with labels, Euler's method, ten labels in equal numbers, the same noise for every cell. Beside
the cells of scale and steps there are variants (CFG-Zero*, guidance on a part of the time), real digits, and the error
of the network's fields against the exact ones of the training set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor
from tyro.conf import Suppress

from fm_book.experiments.base import Experiment, Run, Splits
from fm_book.experiments.evaluation import BLOCK, cached, paired_noise
from fm_book.metrics import Estimate, classes, evaluate_samples, features, proportion_interval, seed_interval
from fm_book.metrics.artefacts import artefacts
from fm_core import ExactLabelledVelocity, guided, load_pretrained, pretrained_card, sample, straight_path
from fm_core.environment import resolve_device

__all__ = ["SCALES", "STEPS", "VARIANTS", "Guidance"]

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
STEPS = (4, 8, 16, 32)
VARIANTS: dict[str, dict[str, Any]] = {
    "zero-star": {"zero_star": True},
    "early": {"interval": (0.0, 0.5)},
    "late": {"interval": (0.5, 1.0)},
    "middle": {"interval": (0.2, 0.8)},
}
FIELD_SCALES = (0.0, 1.0, 2.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Guidance(Experiment):
    """Measure guided digits of the published network with labels; trains nothing.

    Attributes:
        samples: drawn per cell and seed; a multiple of 250.
        seeds: of the noise.
        scales, steps: of the cells, Euler steps; each evaluates the network twice.
        variants: options of :func:`fm_core.guided` beside plain guidance.
        variant_scales, variant_steps: of the variants.
        model: the published network.
        field_images, field_times: states, from test digits, at which network and exact fields are compared.
    """

    name: ClassVar[str] = "guidance"
    samples: int = 250
    seeds: tuple[int, ...] = (0, 1, 2)
    scales: tuple[float, ...] = SCALES
    steps: tuple[int, ...] = STEPS
    variants: Annotated[Mapping[str, dict[str, Any]], Suppress] = field(default_factory=lambda: dict(VARIANTS))
    variant_scales: tuple[float, ...] = (2.0, 5.0)
    variant_steps: int = 16
    model: Annotated[str, Suppress] = "residual-labels"
    field_images: Annotated[int, Suppress] = 200
    field_times: Annotated[tuple[float, ...], Suppress] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

    def runs(self) -> dict[Any, Run]:
        return {}

    def settings(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "seeds": list(self.seeds),
            "scales": list(self.scales),
            "steps": list(self.steps),
            "variants": dict(self.variants),
            "variant_scales": list(self.variant_scales),
            "variant_steps": self.variant_steps,
            "model": self.model,
            "field_images": self.field_images,
            "field_times": list(self.field_times),
        }

    def evaluate(self, data: Splits) -> dict[str, Any]:
        sha = pretrained_card(self.model)["sha256"]
        key = {"weights": sha, "samples": self.samples, "seeds": list(self.seeds)}

        def cell(name: str, **options: Any) -> dict[str, Any]:
            return cached(self.folder / f"{name}.json", key, lambda: self._cell(**options))

        return {
            "weights": sha,
            "real": cached(self.folder / "real.json", key, lambda: self._real(data)),
            "cells": {
                f"{scale:g}": {
                    str(steps): cell(f"scale-{scale:g}-steps-{steps}", scale=scale, steps=steps) for steps in self.steps
                }
                for scale in self.scales
            },
            "variants": {
                name: {
                    f"{scale:g}": cell(f"{name}-{scale:g}", scale=scale, steps=self.variant_steps, **options)
                    for scale in self.variant_scales
                }
                for name, options in self.variants.items()
            },
            "fields": cached(
                self.folder / "fields.json",
                {"weights": sha, "images": self.field_images, "times": list(self.field_times)},
                lambda: self._fields(data),
            ),
        }

    def _cell(self, *, scale: float, steps: int, **options: Any) -> dict[str, Any]:
        device = resolve_device(self.device)
        network, labels = load_pretrained(self.model, device), torch.arange(BLOCK) % 10
        velocity = guided(network, labels, scale, **options)
        blocks = self.samples // BLOCK
        sets = [
            torch.cat(
                [
                    sample(velocity, paired_noise(seed * blocks + b).to(device), steps, progress=False).cpu()
                    for b in range(blocks)
                ]
            )
            for seed in self.seeds
        ]
        return _judged(sets, labels.repeat(blocks))

    def _real(self, data: Splits) -> dict[str, Any]:
        """Training digits, ten labels in equal numbers, as if they were samples."""
        images, labels = data[0].images.cpu(), data[0].labels.cpu()
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(labels), generator=generator)
        by_label = [order[labels[order] == k] for k in range(10)]
        each = self.samples // 10
        sets = [
            images[torch.stack([rows[i * each : (i + 1) * each] for rows in by_label], dim=1).flatten()]
            for i in range(len(self.seeds))
        ]
        return _judged(sets, torch.arange(10).repeat(each))

    @torch.no_grad()
    def _fields(self, data: Splits) -> dict[str, Any]:
        """Mean square distance of network and exact field, per pixel, at states on the paths of test digits."""
        device, (train, test) = resolve_device(self.device), data
        network: Callable[..., Tensor] = load_pretrained(self.model, device)
        exact: Callable[..., Tensor] = ExactLabelledVelocity(train.images, train.labels)
        x_1, y = test.images[: self.field_images], test.labels[: self.field_images].cpu()
        x_0 = torch.randn(x_1.shape, generator=torch.Generator().manual_seed(0)).to(device)
        found: dict[str, Any] = {"t": list(self.field_times)}
        for scale in FIELD_SCALES:
            mine, theirs = guided(network, y, scale), guided(exact, y, scale)
            times = torch.tensor(self.field_times, device=device)
            rows = [straight_path(x_0, x_1, t).x_t for t in times]
            v = [(mine(x, t), theirs(x, t)) for x, t in zip(rows, times, strict=True)]
            found[f"{scale:g}"] = {
                "error": [float((a - b).square().mean()) for a, b in v],
                "exact": [float(b.square().mean()) for _, b in v],
            }
        return found


def _judged(sets: list[Tensor], asked: Tensor) -> dict[str, Any]:
    """Metrics of one set of digits per seed: intervals over seeds, of shares over all digits."""
    cards = [evaluate_samples(images, resamples=0) for images in sets]
    seen = [features(images).cpu() for images in sets]
    estimates: dict[str, Estimate] = {
        "right": proportion_interval(torch.cat([classes(rows) == asked for rows in seen])),
        "pieces": proportion_interval(torch.cat([artefacts(images)["pieces"] > 0 for images in sets])),
        "frechet": seed_interval([card["frechet"].mean for card in cards]),
        "precision": seed_interval([card["precision"].mean for card in cards], within=(0, 1)),
        "recall": seed_interval([card["recall"].mean for card in cards], within=(0, 1)),
        "variety": seed_interval([_variety(rows, asked) for rows in seen]),
    }
    return {name: estimate.entry() for name, estimate in estimates.items()}


def _variety(seen: Tensor, labels: Tensor) -> float:
    """Mean square distance of two digits of one label, in the classifier's features."""
    return float(torch.stack([2 * seen[labels == k].double().var(dim=0).sum() for k in labels.unique()]).mean())
