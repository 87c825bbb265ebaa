"""What is measured on one trained network, every part cached in its run's folder.

All networks get the same noise (in blocks from fixed seeds, so that more samples only add blocks), the same test digits
and the same times. A cached part names its weights and is computed again for others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fm_book.metrics import evaluate_samples
from fm_core._files import read_json, to_json
from fm_core.checkpoints import write_atomically
from fm_core.losses import flow_matching_loss
from fm_core.models import UNet
from fm_core.paths import draw_noise
from fm_core.solvers import TABLEAUX, Velocity, sample, solve, uniform_grid

__all__ = [
    "BLOCK",
    "cached",
    "draw_samples",
    "elapsed",
    "loss_over_time",
    "paired_noise",
    "score",
    "speed",
    "straightness",
]

BLOCK = 250  # samples that are drawn and kept together
NOISE_SEED, LOSS_SEED = 20_000, 30_000


def cached(path: Path, key: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``compute`` gives, from ``path`` if that holds it for the same ``key``.

    Args:
        path: JSON file.
        key: what the values depend on, JSON-ready.
        compute: called where the file is missing, damaged or was made with another key.

    Returns:
        The values as JSON gives them: lists for tuples, None for NaN.
    """
    found = read_json(path)
    if isinstance(found, dict) and found.get("key") == key and isinstance(found.get("values"), dict):
        return found["values"]
    began = time.perf_counter(), time.process_time()
    values = compute()
    seconds = {"wall": time.perf_counter() - began[0], "processor": time.process_time() - began[1]}
    text = to_json({"key": key, "values": values, "seconds": seconds})
    write_atomically(path, (text + "\n").encode())
    return json.loads(text)["values"]


def elapsed(folder: Path) -> dict[str, float]:
    """Seconds that the cached parts below a folder took when they were computed, together.

    Args:
        folder: of an experiment.

    Returns:
        ``wall`` time, and the ``processor`` time of this process, which other work on the machine does not lengthen.
    """
    found = [facts for path in folder.glob("**/*.json") if isinstance(facts := read_json(path), dict)]
    parts = [facts["seconds"] for facts in found if facts.keys() == {"key", "values", "seconds"}]
    return {clock: sum(part[clock] for part in parts) for clock in ("wall", "processor")}


def paired_noise(block: int, size: int = BLOCK) -> Tensor:
    """The noise of a block of samples, ``(size, 1, 28, 28)``, the same for every network."""
    return draw_noise((size, 1, 28, 28), NOISE_SEED + block)


@torch.no_grad()
def draw_samples(
    load: Callable[[], UNet],
    folder: Path,
    weights: str,
    *,
    method: str,
    nfe: int,
    count: int,
    device: torch.device,
) -> Tensor:
    """Samples at a solver and NFE, kept in half precision under ``folder/METHOD-NFE``.

    Args:
        load: gives the network; called only if there is something to draw.
        folder: where samples are kept.
        weights: hash of the network's weights.
        method: a key of :data:`fm_core.solvers.TABLEAUX`.
        nfe: network evaluations per sample, a multiple of the method's stages.
        count: samples, a multiple of :data:`BLOCK`.
        device: to draw on.

    Returns:
        ``(count, 1, 28, 28)``, float32 on the CPU.

    Raises:
        ValueError: an NFE that the method's stages do not divide, or a count that blocks do not.
    """
    stages = TABLEAUX[method].stages
    if nfe % stages or count % BLOCK or min(nfe, count) < 1:
        raise ValueError(
            f"nfe, count: expected a multiple of {stages} ({method} evaluates {stages} times a step) and of {BLOCK}, "
            f"got {nfe} and {count}."
        )
    blocks, model = [], None
    for block in range(count // BLOCK):
        path = folder / f"{method}-{nfe}" / f"{weights[:16]}-{block}.safetensors"
        if (images := _kept_images(path)) is None:
            model = model or load()
            x = sample(model, paired_noise(block).to(device), nfe // stages, method=method, progress=False)
            images = x.half().cpu().contiguous()
            write_atomically(path, save({"images": images}))
        blocks.append(images.float())
    return torch.cat(blocks)


def _kept_images(path: Path) -> Tensor | None:
    """The images of a file; None where it is missing or damaged."""
    try:
        return load_file(path)["images"]
    except (OSError, KeyError, SafetensorError):
        return None


def score(images: Tensor, training: Tensor | None = None, only: str = "") -> dict[str, dict[str, Any]]:
    """``{metric: estimate's entry}`` of a set of samples, with bootstrap intervals over samples.

    Args:
        images: ``(N, 1, 28, 28)``.
        training: training images, for the distance to the nearest one.
        only: keep the metrics whose name holds this.
    """
    card = evaluate_samples(images, training=training)
    return {name: estimate.entry() for name, estimate in card.items() if only in name}


@torch.no_grad()
def loss_over_time(model: Velocity, images: Tensor, bins: int = 20, batch_size: int = 250) -> dict[str, list[float]]:
    """Flow-matching loss as a function of t, on fixed draws of noise and time.

    Args:
        model: the network.
        images: test digits, ``(N, 1, 28, 28)``; every bin of time uses them all.
        bins: equal parts of [0, 1]; times within each are spread evenly.
        batch_size: images per forward pass.

    Returns:
        ``t`` (middles of the bins), ``loss`` and its ``standard_error``.
    """
    generator = torch.Generator().manual_seed(LOSS_SEED)
    means, errors = [], []
    for k in range(bins):
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        order = torch.randperm(len(images), generator=generator)
        t = ((k + (order + 0.5) / len(images)) / bins).to(images)
        parts = zip(*(a.split(batch_size) for a in (images, noise, t)), strict=True)
        losses = torch.cat([flow_matching_loss(model, x, x_0=n, t=s, reduction="none") for x, n, s in parts])
        means.append(losses.mean().item())
        errors.append((losses.std() / len(losses) ** 0.5).item())
    return {"t": [(k + 0.5) / bins for k in range(bins)], "loss": means, "standard_error": errors}


@torch.no_grad()
def straightness(model: Velocity, device: torch.device, steps: int = 64) -> dict[str, float]:
    """How straight the sampled paths are, from one block of noise with Euler steps.

    ``departure = E ∫ ‖(x(1) - x(0)) - v(x(t), t)‖² dt / E ‖x(1) - x(0)‖²``, 0 for straight paths at constant speed, and
    ``length``, the mean of the path's length over the distance of its ends, 1 for straight paths at any speed.

    Args:
        model: the network.
        device: to draw on.
        steps: Euler steps, equal to the NFE.

    Source: Liu et al. 2023, equation 4 (straightness), here relative to the squared distance.
    """
    departures, distances, lengths = [], [], []
    for noise in paired_noise(0).split(50):
        path = solve(model, noise.to(device), uniform_grid(steps), progress=False)
        chord = (path.x[-1] - path.x[0]).flatten(1)  # (B, D)
        assert path.velocity is not None  # solve keeps it
        speed = path.velocity[:-1].flatten(2)  # (steps, B, D)
        departures.append((chord - speed).square().sum(dim=2).mean(dim=0))
        distances.append(chord.square().sum(dim=1))
        lengths.append(path.x.flatten(2).diff(dim=0).norm(dim=2).sum(dim=0) / chord.norm(dim=1))
    departure, distance, length = (torch.cat(part) for part in (departures, distances, lengths))
    return {
        "departure": (departure.mean() / distance.mean()).item(),
        "length": length.mean().item(),
    }


def speed(models: dict[str, UNet], device: torch.device, *, rounds: int = 7, batch: int = 128) -> dict[str, Any]:
    """Images per second of each network in training (forward, backward, AdamW) and in one evaluation, in turns.

    On a CPU the process's own time is counted, so that other work on the machine disturbs little; with one thread that
    is the wall time of an idle machine.

    Args:
        models: networks by name; they are trained a few steps, on noise.
        device: where they are.
        rounds: turns; the first is not counted.
        batch: images at a time.

    Returns:
        ``{name: {"training" and "evaluation": {"median", "low", "high"}}}`` in images per second, lowest and highest of
        the rounds.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    wait = (lambda: None) if device.type == "cpu" else lambda: getattr(torch, device.type).synchronize()
    x = paired_noise(0, batch).to(device)
    optimizers = {name: torch.optim.AdamW(model.parameters(), fused=True) for name, model in models.items()}

    def train_step(name: str) -> None:
        optimizers[name].zero_grad(set_to_none=True)
        flow_matching_loss(models[name], x).backward()
        optimizers[name].step()

    @torch.no_grad()
    def evaluate(name: str) -> None:
        models[name](x, 0.5)

    taken: dict[str, dict[str, list[float]]] = {name: {"training": [], "evaluation": []} for name in models}
    for turn in range(rounds + 1):
        for name in models:
            for what, work in (("training", train_step), ("evaluation", evaluate)):
                wait()
                began = clock()
                work(name)
                wait()
                if turn:
                    taken[name][what].append(batch / (clock() - began))
    summary = {
        name: {what: {"median": sorted(v)[len(v) // 2], "low": min(v), "high": max(v)} for what, v in parts.items()}
        for name, parts in taken.items()
    }
    return {
        "clock": "process" if device.type == "cpu" else "wall",
        "threads": torch.get_num_threads(),
        **summary,
    }
