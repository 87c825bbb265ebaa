"""Bits per dimension of test digits under the networks, and what they depend on.

The published pair is evaluated on official test digits, with the solver's tolerance, the probes and the bins measured
beside it. Three short training runs of the Residual U-Net differ in what a pixel is: one of 256 discrete levels, a
level dequantised uniformly, or that through a logit, which widens the bins at paper and ink. All networks get the same
digits, the same noise within the bins and the same probes, so differences are paired.

Reverse integration may diverge off the training distribution, and one such digit decides a mean. So means are those of
the flow mixed with a uniform distribution, and diverged digits are counted.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from fm_book.experiments.base import Experiment, Run, Splits, train_all
from fm_book.experiments.evaluation import cached
from fm_core.checkpoints import (
    load_checkpoint,
    load_pretrained,
    model_card,
    pretrained_folder,
    save_model,
)
from fm_core.data import Digits, dequantize
from fm_core.environment import resolve_device
from fm_core.likelihood import LOGIT_EDGE, LOGIT_SCALE, UNIFORM_BITS, bits_per_dimension, log_density, to_logit
from fm_core.models import ResidualUNet, count_parameters
from fm_core.solvers import Velocity, uniform_grid
from fm_core.training import TrainConfig

__all__ = [
    "VIEWS",
    "Likelihood",
    "Snapshots",
    "mean_interval",
    "measure",
    "measure_once",
    "mix_with_uniform",
    "preprocess",
    "summarise",
]

VIEWS = ("levels", "dequantised", "logit")  # what a pixel is to a network
DEQUANTIZATIONS = {"even": "uniform"}  # names of bins in the record
BLOCK = 50  # digits that share the solver's steps
NOISE_SEED, DATA_SEED = 40_000, 50_000


@dataclass(frozen=True, kw_only=True)
class Likelihood(Experiment):
    """Bits per dimension of test digits, over tolerance, steps and training.

    Attributes:
        images: training images that each of the short runs sees, counted with repetition.
        digits: test digits that the published pair is evaluated on, evenly spread over the test set.
        few: of these, for the sweeps and the short runs.
        seed: of the training runs.
        snapshots: images seen at which the EMA network is kept; multiples of 25 batches.
        tolerance: of dopri5, relative and absolute.
        tolerances, euler_steps: of the sweeps.
        probes: where their scatter is measured.
    """

    name: ClassVar[str] = "likelihood"
    images: int = 76_800
    digits: int = 500
    few: int = 100
    seed: int = 0
    snapshots: Annotated[tuple[int, ...], Suppress] = (3_200, 9_600, 38_400)
    tolerance: Annotated[float, Suppress] = 1e-3
    tolerances: Annotated[tuple[float, ...], Suppress] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    euler_steps: Annotated[tuple[int, ...], Suppress] = (2, 4, 8, 16, 32, 64, 128, 256)
    probes: Annotated[int, Suppress] = 8

    def runs(self) -> dict[str, Run]:
        """The short training runs, by view of a pixel."""
        config = TrainConfig(images=self.images, seed=self.seed)
        return {view: Run(self.folder / view, ResidualUNet, config, checkpoint_every=25) for view in VIEWS}

    def settings(self) -> dict[str, Any]:
        recipe = asdict(TrainConfig(images=self.images, seed=self.seed))
        return {
            "images": self.images,
            "digits": self.digits,
            "few": self.few,
            "variants": list(VIEWS),
            "snapshots": list(self.snapshots),
            "tolerance": self.tolerance,
            "tolerances": list(self.tolerances),
            "euler_steps": list(self.euler_steps),
            "probes": self.probes,
            "block": BLOCK,
            "logit": {"edge": LOGIT_EDGE, "scale": LOGIT_SCALE},
            "seeds": {"noise": NOISE_SEED, "data": DATA_SEED},
            "recipe": {k: v for k, v in recipe.items() if k != "precision"},
        }

    def train(self, data: Splits, runs: Mapping[Any, Run] | None = None) -> None:
        """The short runs, by default all, each on its own view of the digits."""
        for view, run in (self.runs() if runs is None else runs).items():
            seen = (preprocess(view, data[0]), preprocess(view, data[1]))
            callback = partial(Snapshots, at=self.snapshots)
            train_all(
                [run],
                seen,
                uri=self.uri,
                experiment=self.name,
                device=self.device,
                callback=callback,
            )

    def evaluate(self, data: Splits) -> dict[str, Any]:
        torch.set_flush_denormal(True)  # GELU's slope far below zero, as in training
        test = data[1]
        many, few = (torch.arange(n) * len(test) // n for n in (self.digits, self.few))
        published = {n: self._published(n, test.images[many], test.images[few]) for n in ("residual", "base")}
        bits = {name: parts["bits"]["bits"] for name, (_, parts) in published.items()}
        mixed = {name: mix_with_uniform(values) for name, values in bits.items()}
        return {
            "networks": {f"published-{n}": facts | summarise(parts["bits"]) for n, (facts, parts) in published.items()},
            "difference": mean_interval([b - r for b, r in zip(mixed["base"], mixed["residual"], strict=True)]),
            "per_image": {
                "index": many.tolist(),
                "label": test.labels[many].tolist(),
                "ink": ((test.images[many] + 1) / 2).mean(dim=(1, 2, 3)).tolist(),
                **{f"published-{name}": values for name, values in bits.items()},
            },
            "sweeps": {
                f"published-{name}": {part: summarise(found) for part, found in parts.items() if part != "bits"}
                for name, (_, parts) in published.items()
            },
            "training": {view: self._training(view, run, test.images[few]) for view, run in self.runs().items()},
        }

    def _published(self, name: str, many: Tensor, few: Tensor) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Facts about one of the published pair, and all that is measured on it."""
        card, model = (
            model_card(pretrained_folder(name)),
            load_pretrained(name, resolve_device(self.device)),
        )
        folder = self.folder / f"published-{name}"
        part = partial(measure_once, folder, card["sha256"], model, tolerance=self.tolerance)
        parts = {
            "bits": part("bits", many),
            **{f"tolerance {tol:g}": part(f"tolerance-{tol:g}", few, tolerance=tol) for tol in self.tolerances},
            **{f"euler {n}": part(f"euler-{n}", few, euler=n) for n in self.euler_steps},
            "probes": part("probes", few, probes=self.probes),
            "bare levels": part("bare", few, bins="none"),
            "centred bins": part("centred", few, bins="centred"),
        }
        facts = {
            "images": card["training"]["images"],
            "validation_loss": card["training"]["validation_loss"],
        }
        return facts | {
            "title": f"{name.title()} U-Net",
            "parameters": count_parameters(model),
        }, parts

    def _training(self, view: str, run: Run, images: Tensor) -> dict[str, Any]:
        """Bits in the course of a short run, in its own view of a pixel."""
        points, record = [], run.finished()
        for seen in (*self.snapshots, self.images):
            folder = run.folder if seen == self.images else run.folder / _snapshot_name(seen)
            model, sha = run.load(resolve_device(self.device), folder), model_card(folder)["sha256"]
            bins = "logit" if view == "logit" else "even"
            part = partial(measure_once, run.folder, sha, model, tolerance=self.tolerance)
            found = part(_snapshot_name(seen), images, bins=bins)
            points.append({"images": seen, **summarise(found), "values": found["bits"]})
        return {
            "points": points,
            "validation_loss": record.validation_loss,
            "seconds": record.seconds,
            "commits": sorted({session["git_commit"] for session in record.sessions}),
            "data_sha256": record.facts["data"]["sha256"],
        }


class Snapshots:
    """Callback of :func:`fm_core.train` that keeps the EMA network, from the checkpoint of the step before.

    Args:
        run: its checkpoints meet the snapshots.
        at: images seen at the snapshots.
    """

    def __init__(self, run: Run, at: tuple[int, ...]) -> None:
        self.run, self.at = run, at

    def __call__(self, step: int, model: nn.Module) -> None:
        seen = (step - 1) * self.run.config.batch_size
        if seen not in self.at:
            return
        tensors, state = load_checkpoint(self.run.folder / "checkpoint.safetensors")
        if state["step"] != step - 1:
            raise ValueError(
                f"checkpoint_every: expected a checkpoint at step {step - 1}, got one every "
                f"{self.run.checkpoint_every} steps. Lower it."
            )
        network, prefix = self.run.model(), "ema.module."
        network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        save_model(self.run.folder / _snapshot_name(seen), network, recipe=self.run.recipe(), images=seen)


def preprocess(view: str, digits: Digits) -> Digits:
    """The digits in a view of a pixel; the noise within the bins is drawn once for each image.

    Args:
        view: one of :data:`VIEWS`.
        digits: of discrete levels.
    """
    if view == "levels":
        return digits
    generator = torch.Generator(digits.images.device).manual_seed(DATA_SEED)
    spread = dequantize(digits.images, generator)
    images = to_logit(spread)[0] if view == "logit" else spread
    return Digits(images, digits.labels, f"{digits.source}, {view}")


def measure(
    model: Velocity, images: Tensor, *, bins: str, tolerance: float, euler: int | None, probes: int, tau: float = 1.5
) -> dict[str, Any]:
    """Bits per dimension of digits, block by block from fixed seeds: all networks get the same noise and probes.

    Args:
        model: the network.
        images: ``(N, 1, 28, 28)``, discrete levels.
        bins: "even", "truncated-normal" or "logit", the uniform and the other dequantisations of
            :func:`fm_core.bits_per_dimension`; "centred", uniform with each level in the middle of its bin; "none", the
            density at the discrete levels, which is no probability of the image.
        tolerance: of dopri5, relative and absolute.
        euler: steps of Euler's method instead.
        probes: per image.
        tau: of the truncated normal.

    Returns:
        ``bits``, their ``standard_error`` due to the probes (None for one) and ``nfe`` by block.
    """
    bits, errors, nfe = [], [], []
    solver = {"method": "euler", "t": uniform_grid(euler)} if euler else {"rtol": tolerance, "atol": tolerance}
    for block, x in enumerate(images.split(BLOCK)):
        generator = torch.Generator(x.device).manual_seed(NOISE_SEED + block)
        options = {"probes": probes, "generator": generator, **solver}
        if bins not in ("none", "centred"):
            with warnings.catch_warnings(category=RuntimeWarning, action="ignore"):  # diverged digits are counted
                found = bits_per_dimension(model, x, dequantization=DEQUANTIZATIONS.get(bins, bins), tau=tau, **options)
            here, error = found.bits, found.standard_error
        else:
            u = torch.rand(x.shape, generator=generator, device=x.device) if bins == "centred" else 0.5
            found = log_density(model, x + (u - 0.5) / 127.5, **options)
            nats_to_bits = 1 / (x[0].numel() * math.log(2))
            here = math.log2(127.5 if bins == "centred" else 128) - found.log_density * nats_to_bits
            error = found.standard_error * nats_to_bits
        bits.append(here)
        errors.append(error)
        nfe.append(found.nfe)
    return {
        "bits": [round(v, 5) for v in torch.cat(bits).tolist()],
        "standard_error": [round(v, 5) for v in torch.cat(errors).tolist()] if probes > 1 else None,
        "nfe": nfe,
    }


def measure_once(
    folder: Path, weights: str, model: Velocity, name: str, images: Tensor, *, tolerance: float, bins: str = "even",
    euler: int | None = None, probes: int = 1, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """:func:`measure`, from the folder's cache where it holds these digits under these options.

    Args:
        folder: of the network's results.
        weights: hash of the network.
        name: of the cached file.
    """
    options |= {"bins": bins, "tolerance": tolerance, "euler": euler, "probes": probes}
    key = {"weights": weights, "digits": len(images), **options}
    return cached(folder / "evaluation" / f"{name}.json", key, lambda: measure(model, images, **options))


def mix_with_uniform(bits: list[float], dimension: int = 784, cost: float = 10.0) -> list[float]:
    """Bits per dimension of the flow mixed with the uniform distribution over all images of 256 levels.

    ``-log2((1 - w) 2^(-D b) + w 2^(-8 D)) / D`` with ``w = 2^-cost``: a diverged digit costs little more than 8
    bits, and every other one ``-log2(1 - w) / D``, less than 2e-6, more than before.

    Args:
        bits: bits per dimension under the flow.
        dimension: D, pixels of an image.
        cost: bits per image that name the uniform part.
    """
    ours = torch.tensor(bits, dtype=torch.float64) * dimension - math.log2(1 - 2**-cost)
    theirs = torch.full_like(ours, 8 * dimension + cost)
    return (-torch.logaddexp2(-ours, -theirs) / dimension).tolist()


def _snapshot_name(seen: int) -> str:
    """Folder and cache of a network that has seen so many images."""
    return f"images-{seen}"


def mean_interval(values: list[float]) -> dict[str, Any]:
    """Mean over images, 95 % interval from its standard error, standard deviation and number."""
    v = torch.tensor(values, dtype=torch.float64)
    mean, half = v.mean().item(), 1.96 * v.std().item() / len(v) ** 0.5
    return {
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "sd": v.std().item(),
        "n": len(v),
    }


def summarise(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded of :func:`measure`: interval of the mean, median, and digits above 8 bits."""
    bits, errors = found["bits"], found["standard_error"]
    kept = [b for b in bits if b <= UNIFORM_BITS]
    scatter = {} if errors is None else {"probe_error": statistics.median(errors)}
    return {
        "bits": mean_interval(mix_with_uniform(bits)),
        "median": statistics.median(bits),
        "lost": len(bits) - len(kept),
        "kept": mean_interval(kept) if len(kept) > 1 else None,
        "nfe": {"low": min(found["nfe"]), "high": max(found["nfe"])},
        **scatter,
    }
