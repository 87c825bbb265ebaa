"""From the Base to the Residual U-Net one change at a time, at equal parameters; learning rates of the two ends.

The networks have half the published widths, so that two processor cores can train three seeds of each; the batches
are half as large, which gives the short runs twice the steps. All networks of a seed see the same images in the same
order with the same noise and times, so two rungs are compared seed by seed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from fm_core.checkpoints import load_model
from fm_core.data import Digits
from fm_book.experiments.evaluation import cached, draw_samples, score
from fm_book.experiments.intervals import seed_difference, seed_interval
from fm_book.experiments.variants import VARIANTS, VariantConfig, VariantUNet, build_variant
from fm_book.experiments.matching import flops, parameters
from fm_book.experiments.runs import GRADIENT, curves, finished, run_stages, store
from fm_core.environment import resolve_device

__all__ = ["CHANGES", "RATES", "WIDTHS", "Ablation"]

TIME_DIM = 64
BATCH = 64
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
RATES = (1e-3, VariantConfig.lr, 1e-2)  # learning rates of the two ends
CHANGES = {  # what changes, from which rung to which
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
METHOD, NFE = "euler", 32  # how the samples are drawn
LOGGED = 10  # steps between two points of a curve
LADDER = ("base", "two-convolutions", "identity", "groupnorm", "residual")  # whose gradients are recorded


@dataclass(frozen=True)
class Ablation:
    """Train every rung with each seed, and the two ends at other learning rates; goes on where it was interrupted.

    Attributes:
        images: training images each network sees, counted with repetition.
        seeds: of the trainings.
        samples: drawn per network and seed, a multiple of 250.
        stage: "train", "evaluate" (networks that are trained), or "all".
        out: folder of the experiments; runs go to ``out/ablation``.
        data: "mnist" or "sample".
        device: "auto", "cpu", "cuda", ...
        threads: threads on a CPU; as torch chooses if left out.
    """

    images: int = 38_400
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 1000
    stage: Literal["all", "train", "evaluate"] = "all"
    out: Path = Path("runs/experiments")
    data: str = "mnist"
    device: str = "auto"
    threads: int | None = None

    def configs(self) -> dict[tuple[str, float, int], VariantConfig]:
        """The trainings by rung, learning rate and seed, all networks of a seed before the next seed."""
        return {
            (name, rate, seed): VariantConfig(
                model=name,
                widths=widths,
                time_dim=TIME_DIM,
                images=self.images,
                batch_size=BATCH,
                lr=rate,
                seed=seed,
                data=self.data,  # type: ignore[arg-type]
                eval_every=max(1, self.images // BATCH // 3),
                out=str(self.out / "ablation" / name / f"lr-{rate:g}" / f"seed-{seed}"),
                device=self.device,
                log_every=LOGGED,
                checkpoint_every=100,
                tracking_uri=store(self.out),
                experiment="ablation",
            )
            for seed in self.seeds
            for rate in sorted(RATES, key=lambda rate: rate != VariantConfig.lr)
            for name, widths in WIDTHS.items()
            if rate == VariantConfig.lr or name in ("base", "residual")
        }

    def config(self) -> dict[str, Any]:
        """What decides the recorded numbers, JSON-ready."""
        recipe = VariantConfig(images=self.images, batch_size=BATCH, time_dim=TIME_DIM, data=self.data).recipe()  # type: ignore[arg-type]
        own = ("model", "widths", "seed", "lr", "eval_every", "precision", "attention")
        return {
            "images": self.images,
            "seeds": list(self.seeds),
            "samples": self.samples,
            "sampling": [METHOD, NFE],
            "rates": list(RATES),
            "rungs": {name: {**asdict(VARIANTS[name]), "widths": list(widths)} for name, widths in WIDTHS.items()},
            "changes": {change: list(ends) for change, ends in CHANGES.items()},
            "recipe": {k: v for k, v in recipe.items() if k not in own},
        }

    def run(self) -> str:
        return run_stages("ablation", self)

    def evaluate(self, data: tuple[Digits, Digits]) -> dict[str, Any]:
        """Everything that is recorded.

        Args:
            data: training and test digits.
        """
        configs = self.configs()
        rungs = {name: [configs[name, VariantConfig.lr, seed] for seed in self.seeds] for name in WIDTHS}
        numbers = {name: _columns([self._judge(config) for config in runs]) for name, runs in rungs.items()}
        return {
            "rungs": {
                name: _facts(name, rungs[name]) | {k: seed_interval(v) for k, v in numbers[name].items()}
                for name in rungs
            },
            "changes": {
                change: {k: seed_difference(numbers[after][k], v) for k, v in numbers[before].items()}
                for change, (before, after) in CHANGES.items()
                if numbers[before] and numbers[after]
            },
            "rates": {
                name: {f"{rate:g}": _rate([configs[name, rate, seed] for seed in self.seeds]) for rate in sorted(RATES)}
                for name in ("base", "residual")
            },
            "gradients": {name: _gradients(rungs[name]) for name in LADDER},
        }

    def _judge(self, config: VariantConfig) -> dict[str, float]:
        """One run's validation loss and the metrics of its samples."""
        device, facts = resolve_device(self.device), finished(config) or {}
        if "diverged" in facts:
            return {}
        sha = json.loads((config.folder / "config.json").read_text())["sha256"]
        load = partial(load_model, config.folder, device, build=build_variant)
        folder = config.folder / "evaluation"
        draw = partial(draw_samples, load, folder, sha, count=self.samples, device=device, method=METHOD, nfe=NFE)
        key = {"weights": sha, "samples": self.samples}
        scores = cached(folder / f"{METHOD}-{NFE}.json", key, lambda: score(draw()))
        return {"validation_loss": facts["validation_loss"], **{k: value for k, (value, *_) in scores.items()}}


def _columns(runs: list[dict[str, float]]) -> dict[str, list[float]]:
    """One list a metric from one dictionary a seed; empty where a seed diverged."""
    return {k: [run[k] for run in runs] for k in runs[0]} if all(runs) else {}


def _facts(name: str, runs: list[VariantConfig]) -> dict[str, Any]:
    model, whole = (VariantUNet(n, WIDTHS[n], TIME_DIM) for n in (name, "residual"))
    trained = [finished(config) or {} for config in runs]
    return {
        "title": VARIANTS[name].title,
        "widths": list(WIDTHS[name]),
        "parameters": parameters(model),
        "flops": flops(model),
        "parameters_to_residual": parameters(model) / parameters(whole),
        "flops_to_residual": flops(model) / flops(whole),
        "diverged": sum("diverged" in facts for facts in trained),
        "seconds": [facts.get("seconds") for facts in trained],
        "commits": sorted({s["git_commit"] for facts in trained for s in facts.get("sessions", [])}),
    }


def _rate(runs: list[VariantConfig]) -> dict[str, Any]:
    """One learning rate: validation losses, how often the gradient was clipped and its largest norm."""
    found = [finished(config) or {} for config in runs]
    whole = [(facts, config) for facts, config in zip(found, runs, strict=True) if "diverged" not in facts]
    result: dict[str, Any] = {"diverged": len(runs) - len(whole)}
    if whole:
        norms = [curves(config)["grad_norm"][1] for _, config in whole]
        clip = VariantConfig.grad_clip
        result["validation_loss"] = seed_interval([facts["validation_loss"] for facts, _ in whole])
        result["clipped"] = seed_interval([sum(norm > clip for norm in n) / len(n) for n in norms])
        result["largest_gradient"] = seed_interval([max(n) for n in norms])
    return result


def _gradients(runs: list[VariantConfig]) -> dict[str, Any]:
    """Gradient norm before clipping at each depth over the training, the median of the seeds, and of the whole."""
    found = [curves(config) for config in runs if "diverged" not in (finished(config) or {})]
    names = [k for k in found[0] if k.startswith(GRADIENT)] if found else []
    medians = {
        name.removeprefix(GRADIENT): torch.tensor([run[name][1] for run in found]).median(dim=0).values.tolist()
        for name in [*names, *(["grad_norm"] if names else [])]
    }
    return {"step": found[0]["grad_norm"][0] if found else [], "norm": medians}
