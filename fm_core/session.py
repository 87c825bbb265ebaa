"""A training between two optimizer steps: network, average, optimizer, random state; what a checkpoint holds.

:func:`fm_core.training.train` drives it. Three decisions live here. The images stay whole on the device and batches are
gathered there. The order of the images follows from ``(seed, epoch)``, noise and times from one generator whose state
is in the checkpoint, so that on a CPU an interrupted run ends with the same weights, bit for bit, as one that was never
interrupted. A checkpoint is resumed only by the recipe and the data that made it.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fm_core.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from fm_core.config import TrainConfig, learning_rate
from fm_core.data import Digits, fingerprint, load_digits, load_mnist, load_sample
from fm_core.losses import flow_matching_loss
from fm_core.environment import provenance, resolve_device
from fm_core.solvers import Trajectory, solve, uniform_grid
from fm_core.tracking import Tracker

__all__ = ["Session", "validation_loss"]

LOADERS = {"auto": load_digits, "mnist": load_mnist, "sample": load_sample}
VALIDATION_SEED, SNAPSHOT_SEED = 1234, 4321
SNAPSHOT_DIGITS, SNAPSHOT_STEPS = 8, 20


@torch.no_grad()
def validation_loss(model: Callable[[Tensor, Tensor], Tensor], images: Tensor, batch_size: int = 256) -> float:
    """Flow-matching loss on fixed draws of noise and time, the same for every network and every call.

    Times are spread evenly over [0, 1], one per image, which makes the estimate steadier than random times.

    Args:
        model: network or any ``velocity(x, t)``.
        images: test images, ``(N, 1, H, W)``.
        batch_size: images per forward pass.
    """
    generator = torch.Generator().manual_seed(VALIDATION_SEED)  # on the CPU: the same draws on every device
    x_0 = torch.randn(images.shape, generator=generator).to(images.device)
    order = torch.randperm(len(images), generator=generator)
    t = ((order + 0.5) / len(images)).to(images)
    total = torch.zeros((), device=images.device)
    for x_1, noise, time_ in zip(*(a.split(batch_size) for a in (images, x_0, t)), strict=True):
        total += flow_matching_loss(model, x_1, x_0=noise, t=time_, reduction="none").sum()
    return total.item() / len(images)


class Session:
    """Network, average, optimizer and random state between two optimizer steps; what a checkpoint holds."""

    def __init__(self, config: TrainConfig, data: tuple[Digits, Digits] | None) -> None:
        self.config, self.device = config, resolve_device(config.device)
        load = LOADERS[config.data]
        self.train_set, self.test_set = data or (load(split=split, device=self.device) for split in ("train", "test"))
        if len(self.train_set) < config.batch_size:
            raise ValueError(
                f"batch_size={config.batch_size}, but there are only {len(self.train_set)} training images; lower it."
            )
        self.fingerprint = fingerprint(self.train_set.images)
        self.bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and _gains_from_bf16(self.device))
        self.model = config.build().to(self.device, memory_format=torch.channels_last)
        self.forward = torch.compile(self.model) if config.compile else self.model
        self.ema = AveragedModel(self.model, multi_avg_fn=_ema(config.ema_decay))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=self.device.type != "mps"
        )
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.step, self.seconds, self.run_id = 0, 0.0, None
        self.sessions: list[dict[str, Any]] = []  # where and with what each stretch of the run was made
        self.validation_loss = math.nan
        self.last_snapshot: Trajectory | None = None
        self._epoch, self._order = -1, torch.empty(0)

    @property
    def file(self) -> Path:
        return self.config.folder / "checkpoint.safetensors"

    def facts(self) -> dict[str, Any]:
        """What the run should say about itself beyond its recipe."""
        made_with = provenance(self.device)
        return {
            "git_commit": made_with["git_commit"],
            "device": made_with["device"],
            **{f"version.{name}": value for name, value in made_with["versions"].items()},
            "data_source": self.train_set.source,
            "data_sha256": self.fingerprint,
            "autocast": "bfloat16" if self.bfloat16 else "off",
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "steps": self.config.steps,
        }

    @property
    def images(self) -> int:
        """Images seen so far, counted with repetition."""
        return self.step * self.config.batch_size

    def begin(self) -> None:
        """Start the clock and note what this stretch is made with; a finished run is only looked at."""
        self._clock = time.perf_counter()
        if self.step < self.config.steps:
            self.sessions.append({"from_step": self.step, **provenance(self.device)})

    def advance(self) -> tuple[Tensor, Tensor]:
        """One optimizer step; gives the loss and the gradient's norm, both still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        x_1 = self.train_set.images[self._batch()]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = flow_matching_loss(self.forward, x_1, generator=self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step()
        self.ema.update_parameters(self.model)
        self.step += 1
        return loss.detach(), norm

    def _batch(self) -> Tensor:
        """Indices of the step's images: a fresh permutation each epoch, the last partial batch left out."""
        per_epoch = len(self.train_set) // self.config.batch_size
        epoch, i = divmod(self.step, per_epoch)
        if epoch != self._epoch:
            shuffle = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            self._epoch = epoch
            self._order = torch.randperm(len(self.train_set), generator=shuffle).to(self.device)
        return self._order[i * self.config.batch_size : (i + 1) * self.config.batch_size]

    def evaluate(self, tracker: Tracker) -> None:
        """Validation loss, sample grid and snapshot of the averaged network, from the same noise every time."""
        from torchvision.utils import save_image

        network = self.ema.module.eval()
        self.validation_loss = validation_loss(network, self.test_set.images[: self.config.eval_images])
        tracker.log_metrics({"validation_loss": self.validation_loss}, self.step)
        shape = (SNAPSHOT_DIGITS, *self.test_set.images.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(SNAPSHOT_SEED))
        trajectory = solve(network, noise.to(self.device), uniform_grid(SNAPSHOT_STEPS), progress=False)
        tracker.log_snapshot(trajectory, self.step)
        with tempfile.TemporaryDirectory() as folder:
            grid = Path(folder) / f"step-{self.step:08d}.png"
            save_image(trajectory.x[-1], grid, normalize=True, value_range=(-1, 1))
            tracker.log_file(grid, "samples")
        self.last_snapshot = trajectory

    def save(self) -> None:
        """Write the checkpoint; the clock goes on."""
        now = time.perf_counter()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for i, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": v for name, v in slots.items()}
        tensors["random.generator"] = self.generator.get_state()
        state = {
            "recipe": self.config.recipe(),
            "data_sha256": self.fingerprint,
            "step": self.step,
            "seconds": self.seconds,
            "validation_loss": None if math.isnan(self.validation_loss) else self.validation_loss,
            "run_id": self.run_id,
            "sessions": self.sessions,
        }
        save_checkpoint(self.file, tensors, state)

    def resume(self) -> int:
        """Take up the folder's checkpoint if there is one; gives the step it stands at."""
        if not self.file.exists():
            return 0
        tensors, state = load_checkpoint(self.file)
        mine = self.config.recipe() | {"data_sha256": self.fingerprint}
        theirs = state["recipe"] | {"data_sha256": state["data_sha256"]}
        different = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
        if different:
            changes = "; ".join(f"{k}: {theirs.get(k)!r} there, {mine.get(k)!r} here" for k in different)
            raise CheckpointError(
                f"{self.file} belongs to a training with another recipe ({changes}). It is left untouched; use the "
                "same recipe to go on with it, or give this training another folder with out=...."
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}, "random": {}}
        for name, value in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = value
        self.model.load_state_dict(parts["model"])
        self.ema.load_state_dict(parts["ema"])
        slots: dict[int, dict[str, Tensor]] = {}
        weights = list(self.model.parameters())
        for name, value in parts["optimizer"].items():
            i, _, slot = name.partition(".")
            if value.ndim and value.shape == weights[int(i)].shape:  # the fused step needs the weight's memory layout
                value = torch.empty_like(weights[int(i)]).copy_(value)
            slots.setdefault(int(i), {})[slot] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        self.generator.set_state(parts["random"]["generator"])
        self.step, self.seconds, self.run_id = state["step"], state["seconds"], state["run_id"]
        self.sessions = state["sessions"]
        self.validation_loss = math.nan if state["validation_loss"] is None else state["validation_loss"]
        return self.step


def _ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """Moving average whose memory grows with the run, so that short runs are not dominated by the start."""

    def update(averaged: Any, current: Any, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def _gains_from_bf16(device: torch.device) -> bool:
    """Whether matrix units for bfloat16 are there; without them, networks this small gain little on a CPU, or lose."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
