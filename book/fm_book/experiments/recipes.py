"""Which recipe draws whole digits: times, weights, couplings, heads, EMA and learning rates on short runs.

Every variant changes one thing of the shaped-times recipe, or names what it changes. They are judged by direct measures
and the Fréchet distance and not by the loss, whose value depends on the times that are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from fm_book.experiments.base import Experiment, Run, Splits
from fm_book.experiments.evaluation import cached, draw_samples
from fm_book.experiments.losses import times_loss
from fm_book.metrics import bootstrap_interval, evaluate_samples
from fm_book.metrics.artefacts import artefacts
from fm_core.environment import resolve_device
from fm_core.losses import flow_matching_loss
from fm_core.models import BaseUNet, ResidualUNet, UNet
from fm_core.models.blocks import ResidualBlock
from fm_core.training import Loss, TrainConfig

__all__ = ["RECIPES", "DilatedMiddle", "Preconditioned", "Recipe", "Recipes"]


class Preconditioned(nn.Module):
    """A network whose output is not the velocity itself.

    Args:
        network: the network F inside.
        head: ``"scaled"``: ``v = (2 t - 1) x / n + F(x / √n, t) / √n`` with ``n = t² + (1 - t)²``: the best
            linear velocity for data of variance one, and a correction of unit size; ``"data"``: F is the denoised
            prediction and ``v = (F - x) / (1 - t)``, with 1 - t held at 0.05 or more.

    Source: Karras et al. 2022, section 5, carried over to the straight path.
    """

    def __init__(self, network: UNet, head: str = "scaled") -> None:
        super().__init__()
        self.network, self.head = network, head

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build this network again, JSON-ready."""
        return {"widths": list(self.network.widths), "time_dim": self.network.time_dim, "head": self.head}

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Velocity at ``x``, as :meth:`fm_core.models.UNet.forward`."""
        s = torch.as_tensor(t, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1)
        if self.head == "data":
            return (self.network(x, t) - x) / (1 - s).clamp(min=0.05)
        n = s.square() + (1 - s).square()
        return (2 * s - 1) / n * x + self.network(x / n.sqrt(), t) / n.sqrt()


class DilatedMiddle(ResidualBlock):
    """A residual block whose first convolution is dilated, put after the middle block."""

    def __init__(self, channels: int, time_dim: int = 128) -> None:
        super().__init__(channels, channels, time_dim)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)
        self.time = nn.Identity()

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """``conv₂(GELU(GN(conv₁(GELU(GN(x)))))) + x``, without the time."""
        h = self.conv1(nn.functional.gelu(self.norm1(x)))
        return self.conv2(nn.functional.gelu(self.norm2(h))) + x


class DilatedUNet(UNet):
    """The Residual U-Net with :class:`DilatedMiddle`."""

    def __init__(self) -> None:
        super().__init__(ResidualBlock, middle=DilatedMiddle(128))
        self.config: dict[str, Any] = {"middle": "dilated"}


@dataclass(frozen=True)
class Recipe:
    """A variant: title, network, loss, and the fields of :class:`fm_core.TrainConfig` that it changes."""

    title: str
    build: Callable[[], nn.Module] = ResidualUNet
    loss: Loss = times_loss
    changes: Mapping[str, Any] = field(default_factory=dict)


def _headed(head: str, **options: Any) -> Preconditioned:
    return Preconditioned(ResidualUNet(**options), head)


RECIPES: dict[str, Recipe] = {
    "plain": Recipe("uniform times", loss=flow_matching_loss),
    "shaped": Recipe("half of the times logit-normal(-0.9, 0.9)"),
    "scaled": Recipe("shaped, scaled head", partial(_headed, "scaled")),
    "attention": Recipe("shaped, attention", partial(ResidualUNet, attention=True)),
    "coupled": Recipe("shaped, pairs by optimal transport", loss=partial(times_loss, coupled=True)),
    "small-batch": Recipe("shaped, batches of 64", changes={"batch_size": 64}),
    "all-early": Recipe("all times logit-normal(-0.5, 1)", loss=partial(times_loss, share=1.0, mean=-0.5, scale=1.0)),
    "data": Recipe("shaped, the network predicts the digit", partial(_headed, "data")),
    "dilated": Recipe("shaped, dilated middle", DilatedUNet),
    "long-ema": Recipe("shaped, EMA 0.9995", changes={"ema_decay": 0.9995}),
    "fast": Recipe("shaped, learning rate 0.01", changes={"lr": 1e-2}),
    "wide": Recipe("shaped, widths 24-48-96-128", partial(ResidualUNet, (24, 48, 96, 128))),
    "base-plain": Recipe("Base, uniform times", BaseUNet, flow_matching_loss),
    "base-shaped": Recipe("Base, shaped times", BaseUNet),
}
CELLS = (("euler", 32), ("heun", 50))


@dataclass(frozen=True, kw_only=True)
class Recipes(Experiment):
    """Train short runs of many recipes and judge their samples by direct measures.

    Attributes:
        images: training images each run sees.
        seeds: of the runs.
        samples: drawn per run and solver; a multiple of 250.
        recipes: what is compared, by name.
        cells: solvers with their NFE.
    """

    name: ClassVar[str] = "recipes"
    images: int = 256_000
    seeds: tuple[int, ...] = (0,)
    samples: int = 1000
    recipes: Annotated[Mapping[str, Recipe], Suppress] = field(default_factory=lambda: dict(RECIPES))
    cells: Annotated[tuple[tuple[str, int], ...], Suppress] = CELLS

    def runs(self) -> dict[tuple[str, int], Run]:
        """The training runs by recipe and seed."""
        return {
            (name, seed): Run(
                self.folder / name / f"seed-{seed}",
                recipe.build,
                TrainConfig(images=self.images, seed=seed, **recipe.changes),
                log_every=50,
                checkpoint_every=500,
                loss=recipe.loss,
            )
            for seed in self.seeds
            for name, recipe in self.recipes.items()
        }

    def settings(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "seeds": list(self.seeds),
            "samples": self.samples,
            "cells": [list(cell) for cell in self.cells],
            "recipes": {name: recipe.title for name, recipe in self.recipes.items()},
            "recipe": {k: v for k, v in asdict(TrainConfig(images=self.images)).items() if k != "seed"},
        }

    def evaluate(self, data: Splits) -> dict[str, Any]:
        """Values of the runs that are finished; the others are left out."""
        real = self._judged(data[1].images[: self.samples].cpu())
        found: dict[str, Any] = {"real": real}
        for (name, seed), run in self.runs().items():
            if (record := run.record()) is None:
                continue
            draw = partial(
                draw_samples, partial(run.load, resolve_device(self.device)), run.folder / "evaluation", record.sha256,
                count=self.samples, device=resolve_device(self.device),
            )  # fmt: skip
            key = {"weights": record.sha256, "samples": self.samples}
            found.setdefault(name, {})[str(seed)] = {
                f"{method}-{nfe}": cached(
                    run.folder / "evaluation" / f"{method}-{nfe}.json", key,
                    lambda draw=draw, method=method, nfe=nfe: self._judged(draw(method=method, nfe=nfe)),
                )
                for method, nfe in self.cells
            } | {"seconds": record.seconds, "validation_loss": record.validation_loss}  # fmt: skip
        return found

    def _judged(self, images: Tensor) -> dict[str, Any]:
        direct = {name: bootstrap_interval(torch.mean, values) for name, values in artefacts(images).items()}
        return {name: estimate.entry() for name, estimate in (direct | evaluate_samples(images)).items()}
