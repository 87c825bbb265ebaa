"""Residual against Base, fairly: the published shapes and a Base U-Net of the Residual's size and cost, several seeds.

Every network of a seed sees the same images in the same order with the same noise and times, under the recipe of the
published pair. The runs are short, so what is compared is an early stage of training; the published pair, which saw
more, stands beside them. All samples start from the same noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import torch

from fm_core.checkpoints import load_model
from fm_core.config import TrainConfig
from fm_core.data import Digits
from fm_book.experiments.evaluation import cached, draw_samples, loss_over_time, score, speed, straightness
from fm_book.experiments.intervals import seed_difference, seed_interval
from fm_book.experiments.matching import flops, parameters
from fm_book.experiments.runs import run_stages, store
from fm_core.environment import resolve_device
from fm_core.session import validation_loss

__all__ = ["CELLS", "NETWORKS", "Compare", "Network"]


@dataclass(frozen=True)
class Network:
    """A network that is compared: a readable title, the model's name and its widths."""

    title: str
    model: str
    widths: tuple[int, ...]


NETWORKS: dict[str, Network] = {
    "residual": Network("Residual U-Net", "residual", (16, 32, 64, 128)),
    "base-matched": Network("Base U-Net, same size and cost", "base", (21, 44, 89, 184)),  # both within 1 %
    "base": Network("Base U-Net", "base", (16, 32, 64, 128)),
}
PUBLISHED = {"published-residual": "residual", "published-base": "base"}
CELLS = [("euler", nfe) for nfe in (2, 4, 8, 16, 32, 64)] + [("rk4", nfe) for nfe in (4, 8, 16, 32, 64)]
DIFFERENCES = [("base-matched", "residual"), ("base", "residual"), ("base", "base-matched")]
LOSS_IMAGES = 500
REAL = "real"  # training digits, judged as if they were samples


@dataclass(frozen=True)
class Compare:
    """Train each network with each seed, then judge their samples; both go on where they were interrupted.

    Attributes:
        images: training images each network sees, counted with repetition.
        seeds: of the trainings.
        samples: drawn per network, seed, solver and NFE; a multiple of 250.
        stage: "train", "evaluate" (networks that are trained), or "all".
        out: folder of the experiments; runs go to ``out/compare``.
        data: "mnist" or "sample".
        device: "auto", "cpu", "cuda", ...
        threads: threads on a CPU; as torch chooses if left out.
    """

    images: int = 76_800
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 1000
    stage: Literal["all", "train", "evaluate"] = "all"
    out: Path = Path("runs/experiments")
    data: str = "mnist"
    device: str = "auto"
    threads: int | None = None

    def configs(self) -> dict[tuple[str, int], TrainConfig]:
        """The trainings by network and seed, all networks of a seed before the next seed."""
        return {
            (name, seed): TrainConfig(
                model=network.model,  # type: ignore[arg-type]
                widths=network.widths,
                images=self.images,
                seed=seed,
                data=self.data,  # type: ignore[arg-type]
                eval_every=max(1, self.images // TrainConfig.batch_size // 4),
                out=str(self._folder(name, seed)),
                device=self.device,
                log_every=10,
                checkpoint_every=50,
                tracking_uri=store(self.out),
                experiment="compare",
            )
            for seed in self.seeds
            for name, network in NETWORKS.items()
        }

    def config(self) -> dict[str, Any]:
        """What decides the recorded numbers, JSON-ready."""
        recipe = TrainConfig(images=self.images, data=self.data).recipe()  # type: ignore[arg-type]
        own = ("model", "widths", "seed", "eval_every", "precision")
        return {
            "images": self.images,
            "seeds": list(self.seeds),
            "samples": self.samples,
            "cells": [list(cell) for cell in CELLS],
            "networks": {
                name: asdict(network) | {"widths": list(network.widths)} for name, network in NETWORKS.items()
            },
            "recipe": {k: v for k, v in recipe.items() if k not in own},
        }

    def run(self) -> str:
        return run_stages("compare", self)

    def evaluate(self, data: tuple[Digits, Digits]) -> dict[str, Any]:
        """Everything that is recorded.

        Args:
            data: training and test digits.
        """
        judged: dict[str, list[dict[str, Any]]] = {}
        for name, seed in self.configs():
            judged.setdefault(name, []).append(self._judge(self._folder(name, seed), data))
        for name, model in PUBLISHED.items():
            with as_file(files("fm_core").joinpath("pretrained").joinpath(model)) as weights:
                judged[name] = [self._judge(self.out / "compare" / name, data, weights)]
        real = data[0].images[torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(0))[: self.samples]]
        key = {"samples": self.samples, "what": REAL}
        floor = cached(self.out / "compare" / f"{REAL}.json", key, lambda: score(real.cpu()))
        return {
            "networks": {name: self._facts(name, runs) for name, runs in judged.items()},
            "cells": {name: _over_seeds([run["cells"] for run in runs]) for name, runs in judged.items()},
            "differences": {
                f"{a} minus {b}": _differences([r["cells"] for r in judged[a]], [r["cells"] for r in judged[b]])
                for a, b in DIFFERENCES
            },
            REAL: {name: {"mean": value, "samples": [ends]} for name, (value, *ends) in floor.items()},
            "loss_over_time": _losses({name: [run["loss"] for run in runs] for name, runs in judged.items()}),
            "straightness": {
                name: {k: seed_interval([run["straightness"][k] for run in runs]) for k in runs[0]["straightness"]}
                for name, runs in judged.items()
            },
            "neighbours": {name: _over_seeds([run["neighbours"] for run in runs]) for name, runs in judged.items()},
            "speed": self._speed(),
        }

    def _folder(self, name: str, seed: int) -> Path:
        return self.out / "compare" / name / f"seed-{seed}"

    def _judge(self, folder: Path, data: tuple[Digits, Digits], weights: Path | None = None) -> dict[str, Any]:
        """All that is measured on one network, from its folder's caches where they hold it."""
        device, test = resolve_device(self.device), data[1].images
        saved = json.loads(((weights or folder) / "config.json").read_text())
        load = partial(load_model, weights or folder, device)
        sha, cache = saved["sha256"], folder / "evaluation"
        draw = partial(draw_samples, load, cache, sha, count=self.samples, device=device)

        def part(name: str, key: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
            return cached(cache / f"{name}.json", {"weights": sha, **key}, compute)

        cells = {
            f"{method}-{nfe}": part(
                f"{method}-{nfe}", {"samples": self.samples}, lambda m=method, n=nfe: score(draw(method=m, nfe=n))
            )
            for method, nfe in CELLS
        }
        method, nfe = CELLS[-1]
        near = {"samples": self.samples, "training": len(data[0])}
        return {
            "cells": cells,
            "neighbours": part(
                "neighbours", near, lambda: score(draw(method=method, nfe=nfe), data[0].images.cpu(), "neighbour")
            ),
            "loss": part(
                "loss", {"images": LOSS_IMAGES}, lambda: loss_over_time(load(), test[:: len(test) // LOSS_IMAGES])
            ),
            "straightness": part("straightness", {}, lambda: straightness(load(), device)),
            "validation": part("validation", {"images": 2048}, lambda: {"loss": validation_loss(load(), test[:2048])}),
            "training": saved["training"],
        }

    def _facts(self, name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
        network = NETWORKS[PUBLISHED.get(name, name)]
        reference = NETWORKS["residual"]
        size, whole = (_size(n) for n in (network, reference))
        trainings = [run["training"] for run in runs]
        return {
            "title": ("Published " if name in PUBLISHED else "") + network.title,
            "widths": list(network.widths),
            "parameters": size[0],
            "flops": size[1],
            "parameters_to_residual": size[0] / whole[0],
            "flops_to_residual": size[1] / whole[1],
            "images": trainings[0]["images"],
            "seeds": [t["recipe"]["seed"] for t in trainings],
            "seconds": [t["seconds"] for t in trainings],
            "commits": sorted({s["git_commit"] for t in trainings for s in t["sessions"]}),
            "trained_on": sorted({s["device"] for t in trainings for s in t["sessions"]}),
            "validation_loss": seed_interval([run["validation"]["loss"] for run in runs]),
        }

    def _speed(self) -> dict[str, Any]:
        device = resolve_device(self.device)
        path, key = self.out / "compare" / "speed.json", {"device": str(device), "threads": torch.get_num_threads()}
        return cached(path, key, lambda: speed({name: _build(n).to(device) for name, n in NETWORKS.items()}, device))


def _build(network: Network) -> Any:
    return TrainConfig(model=network.model, widths=network.widths).build()  # type: ignore[arg-type]


def _size(network: Network) -> tuple[int, int]:
    model = _build(network)
    return parameters(model), flops(model)


def _over_seeds(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """``{cell: {metric: interval over seeds, with each seed's interval over samples}}`` from one dictionary a seed."""
    if not isinstance(next(iter(runs[0].values())), dict):  # metrics without cells
        return {
            metric: seed_interval([run[metric][0] for run in runs]) | {"samples": [run[metric][1:] for run in runs]}
            for metric in runs[0]
        }
    return {cell: _over_seeds([run[cell] for run in runs]) for cell in runs[0]}


def _differences(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        cell: {
            metric: seed_difference([run[cell][metric][0] for run in a], [run[cell][metric][0] for run in b])
            for metric in a[0][cell]
        }
        for cell in a[0]
    }


def _losses(runs: dict[str, list[dict[str, list[float]]]]) -> dict[str, Any]:
    """Loss over t: per network the mean over seeds in every bin, and how much more each loses than the Residual."""

    def columns(intervals: list[dict[str, Any]]) -> dict[str, list[float]]:
        return {k: [interval[k] for interval in intervals] for k in ("mean", "low", "high")}

    bins = range(len(next(iter(runs.values()))[0]["t"]))
    by_bin = {name: [[run["loss"][k] for run in seeds] for k in bins] for name, seeds in runs.items()}
    return {
        "t": next(iter(runs.values()))[0]["t"],
        "networks": {name: columns([seed_interval(values) for values in rows]) for name, rows in by_bin.items()},
        "differences": {
            f"{a} minus {b}": columns([seed_difference(x, y) for x, y in zip(by_bin[a], by_bin[b], strict=True)])
            for a, b in DIFFERENCES
        },
    }
