"""Bits per dimension at the right time, and of networks that are trained for it.

The published networks saw the levels themselves. They are evaluated by truncated-normal dequantisation at the time
whose noise is the dequantisation's, beside the uniform one that is read at t = 1. Two Residual U-Nets are trained on
the logit of uniformly dequantised pixels, drawn anew at every step: one by the flow-matching loss, one by the loss that
bounds the likelihood. All get the same digits, noise and probes, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from tyro.conf import Suppress

from fm_book.experiments.base import Experiment, Run, Splits, train_all
from fm_book.experiments.bits import mean_interval, measure_once, mix_with_uniform, preprocess, summarise
from fm_book.experiments.losses import likelihood_logit_loss, logit_loss
from fm_core.checkpoints import load_pretrained, model_card, pretrained_folder
from fm_core.environment import resolve_device
from fm_core.models import ResidualUNet
from fm_core.training import Loss, TrainConfig

__all__ = ["Density"]

LOSSES: dict[str, Loss] = {"logit": logit_loss, "logit-likelihood": likelihood_logit_loss}
PUBLISHED = ("residual", "base")


@dataclass(frozen=True, kw_only=True)
class Density(Experiment):
    """Bits per dimension of test digits: the published pair at the right time, and networks trained for it.

    Attributes:
        images: training images that each network sees, counted with repetition.
        digits: test digits, evenly spread over the test set.
        seed: of the training runs.
        tolerance: of dopri5, relative and absolute.
        taus: half the width of a bin over the noise, for the truncated normal; the second is the headline.
    """

    name: ClassVar[str] = "density"
    images: int = 1_200_000
    digits: int = 500
    seed: int = 0
    tolerance: Annotated[float, Suppress] = 1e-3
    taus: Annotated[tuple[float, ...], Suppress] = (1.0, 1.5, 2.0, 3.0)

    def runs(self) -> dict[str, Run]:
        """The training runs by name of their loss."""
        config = TrainConfig(images=self.images, seed=self.seed)
        return {
            name: Run(self.folder / name, ResidualUNet, config, log_every=50, checkpoint_every=500, loss=loss)
            for name, loss in LOSSES.items()
        }

    def settings(self) -> dict[str, Any]:
        recipe = asdict(TrainConfig(images=self.images, seed=self.seed))
        return {
            "images": self.images,
            "digits": self.digits,
            "tolerance": self.tolerance,
            "taus": list(self.taus),
            "losses": list(LOSSES),
            "recipe": {k: v for k, v in recipe.items() if k != "precision"},
        }

    def train(self, data: Splits, runs: Mapping[Any, Run] | None = None) -> None:
        seen = (preprocess("logit", data[0]), preprocess("logit", data[1]))
        chosen = (self.runs() if runs is None else runs).values()
        train_all(chosen, seen, uri=self.uri, experiment=self.name, device=self.device)

    def evaluate(self, data: Splits) -> dict[str, Any]:
        torch.set_flush_denormal(True)  # GELU's slope far below zero, as in training
        test = data[1]
        some = test.images[torch.arange(self.digits) * len(test) // self.digits]
        bits: dict[str, dict[str, Any]] = {}
        for name in PUBLISHED:
            card, network = model_card(pretrained_folder(name)), load_pretrained(name, resolve_device(self.device))
            folder = self.folder / f"published-{name}"
            part = partial(measure_once, folder, card["sha256"], network, tolerance=self.tolerance)
            bits[name] = {"uniform": part("uniform", some)}
            for tau in self.taus:
                found = part(f"tau-{tau:g}", some, bins="truncated-normal", tau=tau)
                bits[name][f"truncated normal, tau {tau:g}"] = found
        records = {name: run.finished() for name, run in self.runs().items()}
        parts = {
            name: partial(
                measure_once, run.folder, records[name].sha256, run.load(resolve_device(self.device)),
                tolerance=self.tolerance, bins="logit",
            )
            for name, run in self.runs().items()
        }  # fmt: skip
        bits |= {name: {"logit": part("some", some)} for name, part in parts.items()}
        best = min(parts, key=lambda name: sum(bits[name]["logit"]["bits"]))
        bits[best]["logit, all test digits"] = parts[best]("all", test.images)
        headline = f"truncated normal, tau {self.taus[1]:g}"
        pairs = zip(bits["residual"]["uniform"]["bits"], bits["residual"][headline]["bits"], strict=True)
        return {
            "networks": {name: {how: summarise(found) for how, found in parts.items()} for name, parts in bits.items()},
            "gain": mean_interval([a - b for a, b in pairs]),
            "difference": mean_interval(_differences(bits["base"][headline], bits["residual"][headline])),
            "best": best,
            "training": {
                name: {
                    "validation_loss": record.validation_loss,
                    "seconds": record.seconds,
                    "commits": sorted({session["git_commit"] for session in record.sessions}),
                }
                for name, record in records.items()
            },
        }


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[float]:
    """Paired differences of flows that are mixed with the uniform distribution."""
    a, b = mix_with_uniform(first["bits"]), mix_with_uniform(second["bits"])
    return [x - y for x, y in zip(a, b, strict=True)]
