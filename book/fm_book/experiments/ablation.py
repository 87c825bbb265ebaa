"""From the Base to the Residual U-Net one change at a time, at equal parameters; learning rates of the two ends.

The networks have half the published widths and half the batch size, so that two processor cores train three seeds of
each. All networks of a seed see the same images in the same order with the same noise and times: variants are compared
seed by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from tyro.conf import Suppress

from fm_book.experiments.base import GRADIENT, Experiment, Run, Splits, curves
from fm_book.experiments.evaluation import cached, draw_samples, score
from fm_book.experiments.variants import VARIANTS, VariantUNet
from fm_book.metrics import seed_difference, seed_interval
from fm_core.environment import resolve_device
from fm_core.models import count_flops, count_parameters
from fm_core.training import TrainConfig

__all__ = ["CHANGES", "WIDTHS", "Ablation"]

WIDTHS: dict[str, tuple[int, ...]] = {  # each within 1.5 % of the Residual U-Net's parameters, found by matched_widths
    "base": (11, 22, 45, 91),
    "two-convolutions": (8, 16, 32, 65),
    "identity": (8, 16, 32, 64),
    "groupnorm": (8, 16, 32, 64),
    "residual": (8, 16, 32, 64),
    "attention": (8, 16, 32, 60),
    "residual-no-identity": (8, 16, 28, 68),
    "residual-no-norm": (8, 16, 32, 64),
    "residual-input-time": (8, 16, 32, 68),
    "residual-raw-time": (8, 16, 28, 68),
    "base-input-time": (12, 24, 48, 96),
    "base-raw-time": (11, 23, 46, 91),
}
CHANGES: dict[str, tuple[str, str]] = {  # what changes, from which variant to which
    "two convolutions": ("base", "two-convolutions"),
    "identity path": ("two-convolutions", "identity"),
    "GroupNorm": ("identity", "groupnorm"),
    "zero start": ("groupnorm", "residual"),
    "attention": ("residual", "attention"),
    "without identity path": ("residual", "residual-no-identity"),
    "without GroupNorm": ("residual", "residual-no-norm"),
    "time at the input only": ("residual", "residual-input-time"),
    "raw t": ("residual", "residual-raw-time"),
    "Base: time at the input only": ("base", "base-input-time"),
    "Base: raw t": ("base", "base-raw-time"),
    "all from Base to Residual": ("base", "residual"),
}


@dataclass(frozen=True, kw_only=True)
class Ablation(Experiment):
    """Train every variant with each seed, and the two ends at other learning rates.

    Attributes:
        images: training images each network sees, counted with repetition.
        seeds: of the training runs.
        samples: drawn per network and seed, a multiple of 250.
        widths: of each variant.
        time_dim: width of the time embedding.
        batch_size: images per step.
        rates: learning rates of the two ends.
        changes: what changes, from which variant to which.
        sampling: solver and NFE of the samples.
        log_every: steps between points of the curves.
        gradients: variants whose gradient norms are recorded.
        metrics: from samples to ``{metric: estimate's entry}``.
    """

    name: ClassVar[str] = "ablation"
    images: int = 38_400
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 1000
    widths: Annotated[Mapping[str, tuple[int, ...]], Suppress] = field(default_factory=lambda: dict(WIDTHS))
    time_dim: Annotated[int, Suppress] = 64
    batch_size: Annotated[int, Suppress] = 64
    rates: Annotated[tuple[float, ...], Suppress] = (1e-3, TrainConfig.lr, 1e-2)
    changes: Annotated[Mapping[str, tuple[str, str]], Suppress] = field(default_factory=lambda: dict(CHANGES))
    sampling: Annotated[tuple[str, int], Suppress] = ("euler", 32)
    log_every: Annotated[int, Suppress] = 10
    gradients: Annotated[tuple[str, ...], Suppress] = (
        "base",
        "two-convolutions",
        "identity",
        "groupnorm",
        "residual",
    )
    metrics: Annotated[Callable[..., dict[str, Any]], Suppress] = score

    def runs(self) -> dict[tuple[str, float, int], Run]:
        """The training runs by variant, learning rate and seed, all networks of a seed before the next seed."""
        return {
            (name, rate, seed): Run(
                self.folder / name / f"lr-{rate:g}" / f"seed-{seed}",
                partial(VariantUNet, name, widths, self.time_dim),
                TrainConfig(images=self.images, batch_size=self.batch_size, lr=rate, seed=seed),
                log_every=self.log_every,
                eval_every=max(1, self.images // self.batch_size // 3),
                checkpoint_every=100,
            )
            for seed in self.seeds
            for rate in sorted(self.rates, key=lambda rate: rate != TrainConfig.lr)
            for name, widths in self.widths.items()
            if rate == TrainConfig.lr or name in ("base", "residual")
        }

    def settings(self) -> dict[str, Any]:
        recipe = asdict(TrainConfig(images=self.images, batch_size=self.batch_size)) | {"time_dim": self.time_dim}
        return {
            "images": self.images,
            "seeds": list(self.seeds),
            "samples": self.samples,
            "sampling": list(self.sampling),
            "rates": list(self.rates),
            "rungs": {name: {**asdict(VARIANTS[name]), "widths": list(w)} for name, w in self.widths.items()},
            "changes": {change: list(ends) for change, ends in self.changes.items()},
            "recipe": {k: v for k, v in recipe.items() if k not in ("seed", "lr", "precision")},
        }

    def evaluate(self, data: Splits) -> dict[str, Any]:
        runs = self.runs()
        variants = {name: [runs[name, TrainConfig.lr, seed] for seed in self.seeds] for name in self.widths}
        numbers = {name: _columns([self._numbers(run) for run in seeds]) for name, seeds in variants.items()}
        return {
            "rungs": {
                name: self._facts(name, seeds) | {k: seed_interval(v).entry() for k, v in numbers[name].items()}
                for name, seeds in variants.items()
            },
            "changes": {
                change: {k: seed_difference(numbers[after][k], v).entry() for k, v in numbers[before].items()}
                for change, (before, after) in self.changes.items()
                if numbers[before] and numbers[after]
            },
            "rates": {
                name: {
                    f"{rate:g}": self._rate([runs[name, rate, seed] for seed in self.seeds])
                    for rate in sorted(self.rates)
                }
                for name in ("base", "residual")
            },
            "gradients": {name: self._gradients(variants[name]) for name in self.gradients},
        }

    def _numbers(self, run: Run) -> dict[str, float]:
        """One run's validation loss and the metrics of its samples; empty if it diverged."""
        device, record = resolve_device(self.device), run.finished()
        if record.diverged:
            return {}
        folder, (method, nfe) = run.folder / "evaluation", self.sampling
        key = {"weights": record.sha256, "samples": self.samples}

        def scores() -> dict[str, Any]:
            load = partial(run.load, device)
            return self.metrics(
                draw_samples(
                    load,
                    folder,
                    record.sha256,
                    method=method,
                    nfe=nfe,
                    count=self.samples,
                    device=device,
                )
            )

        found = cached(folder / f"{method}-{nfe}.json", key, scores)
        return {
            "validation_loss": record.validation_loss,
            **{k: entry["mean"] for k, entry in found.items()},
        }

    def _facts(self, name: str, runs: Sequence[Run]) -> dict[str, Any]:
        model, residual = (VariantUNet(n, self.widths[n], self.time_dim) for n in (name, "residual"))
        records = [run.finished() for run in runs]
        return {
            "title": VARIANTS[name].title,
            "widths": list(self.widths[name]),
            "parameters": count_parameters(model),
            "flops": count_flops(model),
            "parameters_to_residual": count_parameters(model) / count_parameters(residual),
            "flops_to_residual": count_flops(model) / count_flops(residual),
            "diverged": sum(record.diverged is not None for record in records),
            "seconds": [record.seconds for record in records],
            "commits": sorted({s["git_commit"] for record in records for s in record.sessions}),
        }

    def _rate(self, runs: Sequence[Run]) -> dict[str, Any]:
        """One learning rate: validation losses, share of clipped steps and largest gradient norm."""
        whole = [(run, record) for run in runs if (record := run.finished()).diverged is None]
        result: dict[str, Any] = {"diverged": len(runs) - len(whole)}
        if whole:
            norms = [curves(run, self.uri)["grad_norm"][1] for run, _ in whole]
            clip = TrainConfig.grad_clip
            result["validation_loss"] = seed_interval([record.validation_loss for _, record in whole]).entry()
            result["clipped"] = seed_interval([sum(norm > clip for norm in n) / len(n) for n in norms]).entry()
            result["largest_gradient"] = seed_interval([max(n) for n in norms]).entry()
        return result

    def _gradients(self, runs: Sequence[Run]) -> dict[str, Any]:
        """Gradient norm before clipping at each depth and of the whole over training, the median of the seeds."""
        found = [curves(run, self.uri) for run in runs if run.finished().diverged is None]
        names = [k for k in found[0] if k.startswith(GRADIENT)] if found else []
        medians = {
            name.removeprefix(GRADIENT): torch.tensor([run[name][1] for run in found]).median(dim=0).values.tolist()
            for name in [*names, *(["grad_norm"] if names else [])]
        }
        return {"step": found[0]["grad_norm"][0] if found else [], "norm": medians}


def _columns(runs: list[dict[str, float]]) -> dict[str, list[float]]:
    """One list a metric from one dictionary a seed; empty where a seed diverged."""
    return {k: [run[k] for run in runs] for k in runs[0]} if all(runs) else {}
