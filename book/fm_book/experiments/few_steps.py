"""Digits in a few steps: flow matching, minibatch optimal transport, reflow and MeanFlow at equal NFE.

The three methods are trained further from the published Residual U-Net, with several seeds. Reflow trains on pairs of
the published network's own flow, which ``python -m fm_core pairs`` draws; they are drawn here if they are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from fm_book.experiments.base import Experiment, Run, Splits
from fm_book.experiments.evaluation import BLOCK, cached, paired_noise
from fm_book.metrics import Estimate, evaluate_samples, proportion_interval, seed_interval
from fm_book.metrics.artefacts import artefacts
from fm_core.checkpoints import load_pretrained, pretrained_card
from fm_core.environment import resolve_device
from fm_core.few_steps import (
    GivenPairs,
    draw_pairs,
    load_pairs,
    mean_flow_loss,
    mean_flow_network,
    mean_flow_sample,
    optimal_coupling,
)
from fm_core.losses import flow_matching_loss
from fm_core.solvers import TABLEAUX, sample
from fm_core.training import Loss, TrainConfig

__all__ = ["METHODS", "FewSteps"]

METHODS = ("coupled", "reflow", "mean-flow")
NFES = (1, 2, 4, 8, 16, 32)
START = "residual"  # the published network that all methods start from
PART = 1000  # pairs in a file


@dataclass(frozen=True, kw_only=True)
class FewSteps(Experiment):
    """Train networks for few steps from the published one, and measure their digits over NFE.

    Attributes:
        images: training images of each run.
        seeds: of the runs.
        samples: drawn per network, solver and NFE; a multiple of 250.
        pairs: of noise and sample that reflow trains on.
        pair_steps: Euler steps that draw them.
        methods: names of the methods that are trained.
    """

    name: ClassVar[str] = "few-steps"
    images: int = 250_000
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 5000
    pairs: int = 50_000
    pair_steps: int = 20
    methods: tuple[str, ...] = METHODS
    nfes: Annotated[tuple[int, ...], Suppress] = NFES
    start: Annotated[Callable[[], Any], Suppress] = field(default=partial(load_pretrained, START))

    def runs(self) -> dict[tuple[str, int], Run]:
        """The training runs by method and seed; those of reflow once its pairs are drawn."""
        return {
            (method, seed): Run(
                self.folder / method / f"seed-{seed}",
                partial(_network, self.start, method),
                TrainConfig(images=self.images, batch_size=64, lr=1e-3, seed=seed),
                log_every=50,
                checkpoint_every=500,
                loss=self._loss(method),
            )
            for seed in self.seeds
            for method in self.methods
            if method != "reflow" or self._has_pairs()
        }

    def settings(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "seeds": list(self.seeds),
            "samples": self.samples,
            "pairs": self.pairs,
            "pair_steps": self.pair_steps,
            "methods": list(self.methods),
            "nfes": list(self.nfes),
        }

    def train(self, data: Splits, runs: Mapping[Any, Run] | None = None) -> None:
        """Draw the pairs, then train some runs, by default every one; reflow on its pairs."""
        if runs is None and "reflow" in self.methods:
            name = f"{START} {pretrained_card(START)['sha256']}"
            device = resolve_device(self.device)
            draw_pairs(
                self.start().to(device), self.pair_folder, name=name, count=self.pairs, steps=self.pair_steps,
                part=PART, device=device,
            )  # fmt: skip
        chosen = self.runs() if runs is None else runs
        super().train(data, {key: run for key, run in chosen.items() if key[0] != "reflow"})
        if reflow := {key: run for key, run in chosen.items() if key[0] == "reflow"}:
            samples = self._coupling().x_1
            unlabelled = torch.zeros(len(samples), dtype=torch.int64, device=samples.device)
            drawn = replace(data[0], images=samples, labels=unlabelled, source="pairs of the flow")
            super().train((drawn, data[1]), reflow)

    def evaluate(self, data: Splits) -> dict[str, Any]:
        sha, device = pretrained_card(START)["sha256"], resolve_device(self.device)
        found: dict[str, Any] = {}
        for method in ("euler", "heun"):
            nfes = [nfe for nfe in self.nfes if nfe % TABLEAUX[method].stages == 0]
            draw = partial(_flow, self.start().to(device), method=method)
            found[method] = {str(nfe): [self._cell(f"{method}-{nfe}", {"weights": sha}, draw, nfe)] for nfe in nfes}
        for (method, _), run in self.runs().items():
            key, network = {"weights": run.finished().sha256}, run.load(device)
            draw = partial(mean_flow_sample, network) if method == "mean-flow" else partial(_flow, network)
            for nfe in self.nfes:
                name = f"{run.folder.parent.name}/{run.folder.name}/{nfe}"
                found.setdefault(method, {}).setdefault(str(nfe), []).append(self._cell(name, key, draw, nfe))
        return {
            "cells": {
                method: {nfe: _over_seeds(cells) for nfe, cells in by_nfe.items()} for method, by_nfe in found.items()
            },
            "real": cached(self.folder / "real.json", {"samples": self.samples}, lambda: self._real(data)),
        }

    @property
    def pair_folder(self) -> Path:
        """Where the pairs are."""
        return self.folder / "pairs"

    def _has_pairs(self) -> bool:
        return len(list(self.pair_folder.glob("pairs-*.safetensors"))) >= -(-self.pairs // PART)

    def _coupling(self) -> GivenPairs:
        return _given_pairs(self.pair_folder, resolve_device(self.device))

    def _loss(self, method: str) -> Loss:
        if method == "mean-flow":
            return mean_flow_loss
        return partial(flow_matching_loss, coupling=optimal_coupling if method == "coupled" else self._coupling())

    def _cell(self, name: str, key: dict[str, Any], draw: Callable[..., Tensor], nfe: int = 1) -> dict[str, Any]:
        def measure() -> dict[str, Any]:
            device = resolve_device(self.device)
            blocks = [paired_noise(b).to(device) for b in range(self.samples // BLOCK)]
            return _judged(torch.cat([draw(noise, nfe).cpu() for noise in blocks]))

        return cached(self.folder / f"{name}.json", {**key, "samples": self.samples}, measure)

    def _real(self, data: Splits) -> dict[str, Any]:
        """Training digits, judged as if they were samples."""
        pick = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(0))[: self.samples]
        return _judged(data[0].images.cpu()[pick])


def _network(start: Callable[[], Any], method: str) -> nn.Module:
    """The network of a method, with the weights that all start from."""
    return mean_flow_network(start()) if method == "mean-flow" else start().train()


def _flow(network: Any, noise: Tensor, nfe: int, method: str = "euler") -> Tensor:
    return sample(network, noise, nfe // TABLEAUX[method].stages, method=method, progress=False)


@lru_cache(maxsize=1)
def _given_pairs(folder: Path, device: torch.device) -> GivenPairs:
    """The pairs of a folder, read and sorted once for all runs."""
    return GivenPairs(*(x.to(device) for x in load_pairs(folder)))


def _judged(images: Tensor) -> dict[str, Any]:
    card = evaluate_samples(images, resamples=0)
    values = {name: card[name].mean for name in ("frechet", "precision", "recall")}
    return {**values, "pieces": proportion_interval(artefacts(images)["pieces"] > 0).entry()}


def _over_seeds(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the training seeds, with Student's intervals; of a single network without."""
    found: dict[str, Estimate] = {"frechet": seed_interval([cell["frechet"] for cell in cells])}
    for name in ("precision", "recall"):
        found[name] = seed_interval([cell[name] for cell in cells], within=(0, 1))
    pieces = [cell["pieces"] for cell in cells]
    shares = [share["mean"] for share in pieces]
    found["pieces"] = Estimate.read(pieces[0]) if len(cells) == 1 else seed_interval(shares, within=(0, 1))
    return {name: estimate.entry() for name, estimate in found.items()}
