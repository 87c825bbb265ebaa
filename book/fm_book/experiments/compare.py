"""Residual against Base: the published shapes and a Base U-Net of the Residual's size and cost, several seeds.

Every network of a seed sees the same images in the same order with the same noise and times, under the recipe of the
published pair. The runs are short: they compare an early stage of training, with the published pair beside them. All
samples start from the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from tyro.conf import Suppress

from fm_book.experiments.base import Experiment, Run, Splits
from fm_book.experiments.evaluation import (
    cached,
    draw_samples,
    loss_over_time,
    score,
    speed,
    straightness,
)
from fm_book.metrics import seed_difference, seed_interval
from fm_core.checkpoints import load_model, model_card, pretrained_folder
from fm_core.environment import resolve_device
from fm_core.losses import validation_loss
from fm_core.models import UNet, build_model, count_flops, count_parameters
from fm_core.training import TrainConfig

__all__ = ["NETWORKS", "Compare", "Network"]


@dataclass(frozen=True)
class Network:
    """A network that is compared: a title, the model's name and its widths."""

    title: str
    model: str
    widths: tuple[int, ...]

    def build(self) -> UNet:
        return build_model(self.model, widths=self.widths)


NETWORKS: dict[str, Network] = {
    "residual": Network("Residual U-Net", "residual", (16, 32, 64, 128)),
    "base-matched": Network("Base U-Net, same size and cost", "base", (21, 44, 89, 184)),  # both within 1 %
    "base": Network("Base U-Net", "base", (16, 32, 64, 128)),
}
CELLS = tuple([("euler", nfe) for nfe in (2, 4, 8, 16, 32, 64)] + [("rk4", nfe) for nfe in (4, 8, 16, 32, 64)])
REAL = "real"  # training digits, evaluated as if they were samples


@dataclass(frozen=True, kw_only=True)
class Compare(Experiment):
    """Train each network with each seed, then evaluate their samples.

    Attributes:
        images: training images each network sees, counted with repetition.
        seeds: of the training runs.
        samples: drawn per network, seed, solver and NFE; a multiple of 250.
        networks: what is compared, by name.
        cells: solvers with their NFE.
        published: names of published networks evaluated beside them.
        differences: pairs of networks whose difference is recorded.
        loss_images, loss_bins: test images and bins of the loss over t.
        straightness_steps: Euler steps of the paths' straightness.
        metrics: from samples to ``{metric: estimate's entry}``.
    """

    name: ClassVar[str] = "compare"
    images: int = 76_800
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 1000
    networks: Annotated[Mapping[str, Network], Suppress] = field(default_factory=lambda: dict(NETWORKS))
    cells: Annotated[tuple[tuple[str, int], ...], Suppress] = CELLS
    published: Annotated[tuple[str, ...], Suppress] = ("residual", "base")
    differences: Annotated[tuple[tuple[str, str], ...], Suppress] = (
        ("base-matched", "residual"),
        ("base", "residual"),
        ("base", "base-matched"),
    )
    loss_images: Annotated[int, Suppress] = 500
    loss_bins: Annotated[int, Suppress] = 20
    straightness_steps: Annotated[int, Suppress] = 64
    metrics: Annotated[Callable[..., dict[str, Any]], Suppress] = score

    def runs(self) -> dict[tuple[str, int], Run]:
        """The training runs by network and seed, all networks of a seed before the next seed."""
        return {
            (name, seed): Run(
                self.folder / name / f"seed-{seed}",
                network.build,
                TrainConfig(images=self.images, seed=seed),
                eval_every=max(1, self.images // TrainConfig.batch_size // 4),
            )
            for seed in self.seeds
            for name, network in self.networks.items()
        }

    def settings(self) -> dict[str, Any]:
        recipe = asdict(TrainConfig(images=self.images))
        return {
            "images": self.images,
            "seeds": list(self.seeds),
            "samples": self.samples,
            "cells": [list(cell) for cell in self.cells],
            "networks": {
                name: asdict(network) | {"widths": list(network.widths)} for name, network in self.networks.items()
            },
            "recipe": {k: v for k, v in recipe.items() if k not in ("seed", "precision")},
        }

    def evaluate(self, data: Splits) -> dict[str, Any]:
        found: dict[str, list[dict[str, Any]]] = {}
        for (name, _), run in self.runs().items():
            found.setdefault(name, []).append(self._evaluated(run.folder, run.folder, data))
        for model in self.published:
            name = f"published-{model}"
            found[name] = [self._evaluated(self.folder / name, pretrained_folder(model), data)]
        pick = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(0))[: self.samples]
        key, real = (
            {"samples": self.samples, "what": REAL},
            data[0].images[pick.to(data[0].images.device)].cpu(),
        )
        floor = cached(self.folder / f"{REAL}.json", key, lambda: self.metrics(real))
        return {
            "networks": {name: self._facts(name, runs) for name, runs in found.items()},
            "cells": {name: _over_seeds([run["cells"] for run in runs]) for name, runs in found.items()},
            "differences": {
                f"{a} minus {b}": _differences([r["cells"] for r in found[a]], [r["cells"] for r in found[b]])
                for a, b in self.differences
            },
            REAL: {name: {"mean": e["mean"], "samples": [[e["low"], e["high"]]]} for name, e in floor.items()},
            "loss_over_time": self._losses({name: [run["loss"] for run in runs] for name, runs in found.items()}),
            "straightness": {
                name: {
                    k: seed_interval([run["straightness"][k] for run in runs]).entry() for k in runs[0]["straightness"]
                }
                for name, runs in found.items()
            },
            "neighbours": {name: _over_seeds([run["neighbours"] for run in runs]) for name, runs in found.items()},
            "speed": self._speed(),
        }

    def _evaluated(self, folder: Path, weights: Path, data: Splits) -> dict[str, Any]:
        """All that is measured on the network in ``weights``, from the caches in ``folder`` where they hold it."""
        device, test = resolve_device(self.device), data[1].images
        card = model_card(weights)

        def load() -> UNet:
            return load_model(weights, device)

        sha, cache = card["sha256"], folder / "evaluation"
        draw = partial(draw_samples, load, cache, sha, count=self.samples, device=device)

        def part(name: str, key: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
            return cached(cache / f"{name}.json", {"weights": sha, **key}, compute)

        def cell(method: str, nfe: int) -> dict[str, Any]:
            samples = {"samples": self.samples}
            return part(f"{method}-{nfe}", samples, lambda: self.metrics(draw(method=method, nfe=nfe)))

        method, nfe = self.cells[-1]
        near = {"samples": self.samples, "training": len(data[0])}
        few, steps, bins = (
            test[:: max(1, len(test) // self.loss_images)],
            self.straightness_steps,
            self.loss_bins,
        )
        return {
            "cells": {f"{method}-{nfe}": cell(method, nfe) for method, nfe in self.cells},
            "neighbours": part(
                "neighbours",
                near,
                lambda: self.metrics(draw(method=method, nfe=nfe), data[0].images.cpu(), "neighbour"),
            ),
            "loss": part(
                "loss",
                {"images": len(few), "bins": bins},
                lambda: loss_over_time(load(), few, bins=bins),
            ),
            "straightness": part("straightness", {"steps": steps}, lambda: straightness(load(), device, steps=steps)),
            "validation": part(
                "validation",
                {"images": 2048},
                lambda: {"loss": validation_loss(load(), test[:2048])},
            ),
            "training": card["training"],
        }

    def _facts(self, name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
        published = name.startswith("published-")
        network = NETWORKS[name.removeprefix("published-")] if published else self.networks[name]
        model, residual = network.build(), self.networks["residual"].build()
        training = [run["training"] for run in runs]
        return {
            "title": ("Published " if published else "") + network.title,
            "widths": list(network.widths),
            "parameters": count_parameters(model),
            "flops": count_flops(model),
            "parameters_to_residual": count_parameters(model) / count_parameters(residual),
            "flops_to_residual": count_flops(model) / count_flops(residual),
            "images": training[0]["images"],
            "seeds": [t["recipe"]["seed"] for t in training],
            "seconds": [t["seconds"] for t in training],
            "commits": sorted({s["git_commit"] for t in training for s in t["sessions"]}),
            "trained_on": sorted({s["device"] for t in training for s in t["sessions"]}),
            "validation_loss": seed_interval([run["validation"]["loss"] for run in runs]).entry(),
        }

    def _losses(self, runs: dict[str, list[dict[str, list[float]]]]) -> dict[str, Any]:
        """Loss over t: the mean over seeds in every bin, and the differences of networks."""

        def columns(estimates: list[Any]) -> dict[str, list[float]]:
            return {k: [getattr(estimate, k) for estimate in estimates] for k in ("mean", "low", "high")}

        t = next(iter(runs.values()))[0]["t"]
        by_bin = {name: [[run["loss"][k] for run in seeds] for k in range(len(t))] for name, seeds in runs.items()}
        return {
            "t": t,
            "networks": {name: columns([seed_interval(values) for values in rows]) for name, rows in by_bin.items()},
            "differences": {
                f"{a} minus {b}": columns([seed_difference(x, y) for x, y in zip(by_bin[a], by_bin[b], strict=True)])
                for a, b in self.differences
            },
        }

    def _speed(self) -> dict[str, Any]:
        device = resolve_device(self.device)
        key = {"device": str(device), "threads": torch.get_num_threads()}
        networks = {name: network.build().to(device) for name, network in self.networks.items()}
        return cached(self.folder / "speed.json", key, lambda: speed(networks, device))


def _over_seeds(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """``{cell: {metric: estimate's entry}}`` from one dictionary a seed, with each seed's interval over samples."""
    if "mean" not in next(iter(runs[0].values())):
        return {cell: _over_seeds([run[cell] for run in runs]) for cell in runs[0]}
    return {
        metric: seed_interval([run[metric]["mean"] for run in runs]).entry()
        | {"samples": [[run[metric]["low"], run[metric]["high"]] for run in runs]}
        for metric in runs[0]
    }


def _differences(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> dict[str, Any]:
    def difference(cell: str, metric: str) -> dict[str, Any]:
        first, second = ([run[cell][metric]["mean"] for run in runs] for runs in (a, b))
        return seed_difference(first, second).entry()

    return {cell: {metric: difference(cell, metric) for metric in a[0][cell]} for cell in a[0]}
