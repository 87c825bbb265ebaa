"""What a training depends on, as one small dataclass, and the learning rate it implies."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fm_core.models import UNet, build_model

__all__ = ["TrainConfig", "learning_rate"]

DATA = ("auto", "mnist", "sample")
PRECISIONS = ("auto", "float32", "bfloat16")
WHERE_NOT_WHAT = {"out", "device", "log_every", "checkpoint_every", "track", "tracking_uri", "experiment", "compile"}


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training depends on; saved beside the weights and logged as it is.

    Attributes:
        model: "base" or "residual".
        widths: channels of each level of the U-Net.
        time_dim: width of the time embedding.
        attention: self-attention in the middle of the Residual U-Net.
        images: training images to see in all, counted with repetition.
        batch_size: images per optimizer step.
        lr: highest learning rate.
        weight_decay: AdamW's decoupled weight decay.
        warmup: share of the steps over which the learning rate rises from zero, in [0, 1).
        grad_clip: largest norm of the gradient.
        ema_decay: decay of the moving average of the weights, in [0, 1).
        seed: of the weights, the order of the images, the noise and the times.
        data: "auto" (MNIST, else the bundled sample), "mnist" or "sample".
        eval_images: test images of the validation loss.
        eval_every: steps between validations, each with a sample grid and a snapshot; 0 for only the last.
        precision: "auto", "float32" or "bfloat16" (autocast); "auto" takes bfloat16 where the device gains from it.
        out: folder of the run; "runs/<model>" if left out.
        device: "auto", "cpu", "cuda", ...
        compile: run the network through torch.compile.
        log_every: steps between points of the curves.
        checkpoint_every: steps between checkpoints.
        track: record the run with MLflow.
        tracking_uri: MLflow's store; $MLFLOW_TRACKING_URI or sqlite:///mlflow.db if left out.
        experiment: MLflow experiment.
    """

    model: Literal["base", "residual"] = "residual"
    widths: tuple[int, ...] = (16, 32, 64, 128)
    time_dim: int = 128
    attention: bool = False
    images: int = 1_200_000
    batch_size: int = 128
    lr: float = 3e-3
    weight_decay: float = 0.01
    warmup: float = 0.03
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    data: Literal["auto", "mnist", "sample"] = "auto"
    eval_images: int = 2048
    eval_every: int = 1000
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    out: str | None = None
    device: str = "auto"
    compile: bool = False
    log_every: int = 50
    checkpoint_every: int = 500
    track: bool = True
    tracking_uri: str | None = None
    experiment: str = "flow-matching"

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "eval_images", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it must be at least 1.")
        if self.eval_every < 0:
            raise ValueError(
                f"eval_every={self.eval_every}: it must be at least 0; 0 evaluates only after the last step."
            )
        if self.images < self.batch_size:
            raise ValueError(f"images={self.images} is less than one batch of {self.batch_size}; raise images.")
        for name in ("lr", "grad_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: it must be positive.")
        for name in ("warmup", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it must be in [0, 1).")
        if self.data not in DATA:
            raise ValueError(f"data={self.data!r}: choose {', '.join(map(repr, DATA))}.")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision={self.precision!r}: choose 'auto', 'float32' or 'bfloat16'.")
        if self.attention and self.model == "base":
            raise ValueError("attention=True: only the Residual U-Net has attention; take model='residual'.")

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.images // self.batch_size

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(self.out or f"runs/{self.model}")

    def build(self) -> UNet:
        """The network, freshly initialised from the seed."""
        arguments: dict[str, Any] = {"widths": self.widths, "time_dim": self.time_dim}
        if self.model == "residual":
            arguments["attention"] = self.attention
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return build_model(self.model, **arguments)

    def recipe(self) -> dict[str, Any]:
        """The fields that decide what the weights become; a checkpoint is resumed only by the same recipe."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if k not in WHERE_NOT_WHAT}


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine down to zero.

    Args:
        step: 0 to ``config.steps - 1``.
        config: gives ``lr``, ``warmup`` and the number of steps.

    Source: Loshchilov and Hutter 2017 (cosine), without restarts.
    """
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, config.steps - warm)))
