"""How likely the test digits are under the networks, in bits per dimension, and where the bits go.

The published pair is judged on official test digits, with the solver's tolerance, the probes and the bins measured
beside it. Three short trainings of the Residual U-Net, equal but for what they see of a pixel, test why flows that were
trained for their likelihood do better: the bare levels, as the published networks saw them; levels spread over their
bins; and those through a logit, which widens the bins at paper and ink. All networks get the same digits, the same
noise within the bins and the same probes, so differences are paired.

A flow may lose a digit: walked backwards, it leaves the region that the network knows and runs away, and its bits are
astronomical. One such digit decides a mean, so means are those of guarded bits, and the lost digits are counted.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fm_core.checkpoints import load_checkpoint, load_model, save_model
from fm_core.config import TrainConfig
from fm_core.data import Digits
from fm_book.experiments.evaluation import cached
from fm_book.experiments.matching import parameters
from fm_book.experiments.pixels import BLOCK, DATA_SEED, EDGE, NOISE_SEED, SCALE, VARIANTS, guarded, measure, seen_as
from fm_book.experiments.runs import run_stages, store, train_all
from fm_core.models import UNet
from fm_core.environment import resolve_device

__all__ = ["Likelihood", "Snapshots", "mean_interval"]

PUBLISHED = {"published-residual": "residual", "published-base": "base"}
SNAPSHOTS = (3_200, 9_600, 38_400)  # images seen; the finished network makes the last point
CHECKPOINT_EVERY = 25  # steps; divides the snapshots
TOLERANCE = 1e-3  # of dopri5, relative and absolute; the sweep says what it costs
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
EULER_STEPS = (2, 4, 8, 16, 32, 64, 128, 256)
PROBES = 8  # where their scatter is measured
LOST = 8.0  # bits per dimension that a uniform guess needs; a digit that needs more is lost


@dataclass(frozen=True)
class Likelihood:
    """Bits per dimension of test digits, over tolerance, steps and training; goes on where it was interrupted.

    Attributes:
        images: training images that each of the short trainings sees, counted with repetition.
        digits: test digits that the published pair is judged on, evenly spread over the test set.
        few: of these, evenly spread, for the sweeps and the short trainings.
        seed: of the trainings.
        stage: "train", "evaluate" (networks that are trained), or "all".
        out: folder of the experiments; runs go to ``out/likelihood``.
        data: "mnist" or "sample".
        device: "auto", "cpu", "cuda", ...
        threads: threads on a CPU; as torch chooses if left out.
    """

    images: int = 76_800
    digits: int = 500
    few: int = 100
    seed: int = 0
    stage: Literal["all", "train", "evaluate"] = "all"
    out: Path = Path("runs/experiments")
    data: str = "mnist"
    device: str = "auto"
    threads: int | None = None

    def configs(self) -> dict[str, TrainConfig]:
        """The short trainings, by what they see of a pixel."""
        return {
            variant: TrainConfig(
                images=self.images,
                seed=self.seed,
                data=self.data,  # type: ignore[arg-type]
                eval_every=0,
                out=str(self._folder(variant)),
                device=self.device,
                log_every=10,
                checkpoint_every=CHECKPOINT_EVERY,
                tracking_uri=store(self.out),
                experiment="likelihood",
            )
            for variant in VARIANTS
        }

    def config(self) -> dict[str, Any]:
        """What decides the recorded numbers, JSON-ready."""
        recipe = TrainConfig(images=self.images, seed=self.seed, data=self.data, eval_every=0).recipe()  # type: ignore[arg-type]
        return {
            "images": self.images,
            "digits": self.digits,
            "few": self.few,
            "variants": list(VARIANTS),
            "snapshots": list(SNAPSHOTS),
            "tolerance": TOLERANCE,
            "tolerances": list(TOLERANCES),
            "euler_steps": list(EULER_STEPS),
            "probes": PROBES,
            "block": BLOCK,
            "logit": {"edge": EDGE, "scale": SCALE},
            "seeds": {"noise": NOISE_SEED, "data": DATA_SEED},
            "recipe": {k: v for k, v in recipe.items() if k != "precision"},
        }

    def run(self) -> str:
        return run_stages("likelihood", self)

    def train(self, data: tuple[Digits, Digits]) -> None:
        """The short trainings, each on its own view of the digits."""
        for variant, config in self.configs().items():
            train_all([config], tuple(seen_as(variant, digits) for digits in data), callback=Snapshots)

    def evaluate(self, data: tuple[Digits, Digits]) -> dict[str, Any]:
        """Everything that is recorded.

        Args:
            data: training and test digits.
        """
        torch.set_flush_denormal(True)  # GELU's slope far below zero, as in training
        test = data[1]
        many, few = (torch.arange(n) * len(test) // n for n in (self.digits, self.few))
        published = {name: self._published(name, test.images[many], test.images[few]) for name in PUBLISHED}
        bits = {name: parts["bits"]["bits"] for name, (_, parts) in published.items()}
        return {
            "networks": {name: facts | _summary(parts["bits"]) for name, (facts, parts) in published.items()},
            "difference": mean_interval(_minus(*(guarded(bits[f"published-{name}"]) for name in ("base", "residual")))),
            "per_image": {
                "index": many.tolist(),
                "label": test.labels[many].tolist(),
                "ink": ((test.images[many] + 1) / 2).mean(dim=(1, 2, 3)).tolist(),
                **bits,
            },
            "sweeps": {
                name: {part: _summary(found) for part, found in parts.items() if part != "bits"}
                for name, (_, parts) in published.items()
            },
            "training": {variant: self._training(variant, test.images[few]) for variant in VARIANTS},
        }

    def _folder(self, variant: str) -> Path:
        return self.out / "likelihood" / variant

    def _published(self, name: str, many: Tensor, few: Tensor) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Facts about one of the published pair, and all that is measured on it."""
        with as_file(files("fm_core").joinpath("pretrained").joinpath(PUBLISHED[name])) as weights:
            saved = json.loads((weights / "config.json").read_text())
            model = load_model(weights, resolve_device(self.device))
        part = partial(self._part, self._folder(name), saved["sha256"], model)
        parts = {
            "bits": part("bits", many),
            **{f"tolerance {tol:g}": part(f"tolerance-{tol:g}", few, tolerance=tol) for tol in TOLERANCES},
            **{f"euler {n}": part(f"euler-{n}", few, euler=n) for n in EULER_STEPS},
            "probes": part("probes", few, probes=PROBES),
            "bare levels": part("bare", few, bins="none"),
            "centred bins": part("centred", few, bins="centred"),
        }
        training = saved["training"]
        facts = {"images": training["images"], "validation_loss": training["validation_loss"]}
        return facts | {"title": f"{PUBLISHED[name].title()} U-Net", "parameters": parameters(model)}, parts

    def _training(self, variant: str, images: Tensor) -> dict[str, Any]:
        """Bits in the course of a short training, in its own view of a pixel."""
        points = []
        for seen in (*SNAPSHOTS, self.images):
            folder = self._folder(variant) / ("" if seen == self.images else snapshot_name(seen))
            saved = json.loads((folder / "config.json").read_text())
            model = load_model(folder, resolve_device(self.device))
            bins = "logit" if variant == "logit" else "even"
            found = self._part(self._folder(variant), saved["sha256"], model, snapshot_name(seen), images, bins=bins)
            points.append({"images": seen, **_summary(found), "values": found["bits"]})
        facts = saved["training"]
        return {
            "points": points,
            "validation_loss": facts["validation_loss"],
            "seconds": facts["seconds"],
            "commits": sorted({session["git_commit"] for session in facts["sessions"]}),
            "data_sha256": facts["data"]["sha256"],
        }

    def _part(
        self, folder: Path, weights: str, model: UNet, name: str, images: Tensor, **options: Any
    ) -> dict[str, Any]:
        """Bits of images, from the folder's cache where it holds them."""
        options = {"bins": "even", "tolerance": TOLERANCE, "euler": None, "probes": 1} | options
        key = {"weights": weights, "digits": len(images), **options}
        return cached(folder / "evaluation" / f"{name}.json", key, lambda: measure(model, images, **options))


class Snapshots:
    """A training's callback that keeps the averaged network at some moments, from the checkpoint of the step before.

    Args:
        config: of the run; its checkpoints meet :data:`SNAPSHOTS`.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def __call__(self, step: int, model: UNet) -> None:
        seen = (step - 1) * self.config.batch_size
        if seen not in SNAPSHOTS:
            return
        tensors, state = load_checkpoint(self.config.folder / "checkpoint.safetensors")
        if state["step"] != step - 1:
            raise ValueError(f"checkpoint_every={self.config.checkpoint_every} leaves out step {step - 1}; lower it.")
        network, prefix = self.config.build(), "ema.module."
        network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        save_model(self.config.folder / snapshot_name(seen), network, recipe=self.config.recipe(), images=seen)


def snapshot_name(seen: int) -> str:
    """Folder and cache of a network that has seen so many images."""
    return f"images-{seen}"


def mean_interval(values: list[float]) -> dict[str, Any]:
    """Mean over images, 95 % interval from its standard error, standard deviation and number."""
    v = torch.tensor(values, dtype=torch.float64)
    mean, half = v.mean().item(), 1.96 * v.std().item() / len(v) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half, "sd": v.std().item(), "n": len(v)}


def _summary(found: Mapping[str, Any]) -> dict[str, Any]:
    bits, errors = found["bits"], found["standard_error"]
    kept = [b for b in bits if b <= LOST]
    scatter = {} if errors is None else {"probe_error": statistics.median(errors)}
    return {
        "bits": mean_interval(guarded(bits)),
        "median": statistics.median(bits),
        "lost": len(bits) - len(kept),
        "kept": mean_interval(kept) if len(kept) > 1 else None,
        "nfe": {"low": min(found["nfe"]), "high": max(found["nfe"])},
        **scatter,
    }


def _minus(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]
