"""Residual against Base, fairly: the published shapes and a Base U-Net of the Residual's size and cost, several seeds.

Every network of a seed sees the same images in the same order with the same noise and times, under the recipe of the
published pair. The runs are short, so what is compared is an early stage of training; the published pair, which saw
more, stands beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fm_core.config import TrainConfig
from fm_core.experiments.runs import digits, store, train_all

__all__ = ["NETWORKS", "Compare", "Network"]


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


@dataclass(frozen=True)
class Compare:
    """Train each network with each seed, then judge their samples; both go on where they were interrupted.

    Attributes:
        images: training images each network sees, counted with repetition.
        seeds: of the trainings.
        out: folder of the experiments; runs go to ``out/compare``.
        data: "mnist" or "sample".
        device: "auto", "cpu", "cuda", ...
        threads: threads on a CPU; as torch chooses if left out.
    """

    images: int = 76_800
    seeds: tuple[int, ...] = (0, 1, 2)
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
                out=str(self.out / "compare" / name / f"seed-{seed}"),
                device=self.device,
                log_every=10,
                checkpoint_every=50,
                tracking_uri=store(self.out),
                experiment="compare",
            )
            for seed in self.seeds
            for name, network in NETWORKS.items()
        }

    def run(self) -> str:
        if self.threads:
            torch.set_num_threads(self.threads)
        train_all(self.configs().values(), digits(self.data, self.device))
        return f"trained {len(self.configs())} networks in {self.out / 'compare'}"
