"""From the Base to the Residual U-Net one change at a time, at equal parameters; learning rates of the two ends.

The networks have half the published widths, so that two processor cores can train three seeds of each; the batches
are half as large, which gives the short runs twice the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fm_core.experiments.ladder import VariantConfig
from fm_core.experiments.runs import digits, store, train_all

__all__ = ["RATES", "WIDTHS", "Ablation"]

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


@dataclass(frozen=True)
class Ablation:
    """Train every rung with each seed, and the two ends at other learning rates; goes on where it was interrupted.

    Attributes:
        images: training images each network sees, counted with repetition.
        seeds: of the trainings.
        out: folder of the experiments; runs go to ``out/ablation``.
        data: "mnist" or "sample".
        device: "auto", "cpu", "cuda", ...
        threads: threads on a CPU; as torch chooses if left out.
    """

    images: int = 38_400
    seeds: tuple[int, ...] = (0, 1, 2)
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
                log_every=10,
                checkpoint_every=100,
                tracking_uri=store(self.out),
                experiment="ablation",
            )
            for seed in self.seeds
            for rate in sorted(RATES, key=lambda rate: rate != VariantConfig.lr)
            for name, widths in WIDTHS.items()
            if rate == VariantConfig.lr or name in ("base", "residual")
        }

    def run(self) -> str:
        if self.threads:
            torch.set_num_threads(self.threads)
        train_all(self.configs().values(), digits(self.data, self.device))
        return f"trained {len(self.configs())} networks in {self.out / 'ablation'}"
