"""Training a velocity network: one function that drives a session and reports what it did.

Numbers are read back from the device only every ``log_every`` steps, so a GPU never waits for Python. What is trained
stands in :mod:`fm_core.config`; the state between two steps, its checkpoint and its random numbers in
:mod:`fm_core.session`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from fm_core.checkpoints import save_model
from fm_core.config import TrainConfig, learning_rate
from fm_core.data import Digits
from fm_core.models import UNet
from fm_core.session import Session, validation_loss
from fm_core.solvers import Trajectory
from fm_core.tracking import MLflowTracker, NullTracker, Tracker

__all__ = ["TrainConfig", "TrainResult", "learning_rate", "train", "validation_loss"]

Callback = Callable[[int, UNet], Mapping[str, float] | None]


@dataclass(frozen=True)
class TrainResult:
    """What a training gives back.

    Attributes:
        model: the network with the averaged weights, in evaluation mode.
        validation_loss: its loss on the fixed draws.
        steps: optimizer steps taken.
        images: images seen.
        seconds: time spent training, evaluation and checkpoints included, over all sessions of the run.
        images_per_second: median over the logged stretches of this session, evaluation left out; NaN if none.
        folder: folder of the run.
        run_id: MLflow's id of the run, or None.
        resumed_at: step at which an earlier session was taken up; 0 for a fresh start.
    """

    model: UNet
    validation_loss: float
    steps: int
    images: int
    seconds: float
    images_per_second: float
    folder: Path
    run_id: str | None
    resumed_at: int


def train(
    config: TrainConfig,
    *,
    data: tuple[Digits, Digits] | None = None,
    tracker: Tracker | None = None,
    progress: bool = True,
    callback: Callback | None = None,
) -> TrainResult:
    """Train a network, or go on with a training that was interrupted.

    Where the run's folder holds a checkpoint of the same recipe, training goes on from it, into the same MLflow run.

    Args:
        config: what to train and how.
        data: training and test digits; loaded as ``config.data`` says if left out.
        tracker: where curves go; an MLflow run, or nothing with ``config.track=False``, if left out.
        progress: show a bar with loss, images/s and time left.
        callback: called as ``callback(step, model)`` after each optimizer step, the step's clipped gradients still in
            place. Numbers that it returns, by name, are logged with the curves when their step is logged.

    Raises:
        CheckpointError: the folder holds a damaged or foreign checkpoint, or one of another recipe; it is untouched.
        FloatingPointError: the loss or the gradient became NaN or infinite; the last good checkpoint is untouched.
        ValueError: fewer training images than one batch.

    Source: Lipman et al. 2023, algorithm of section 4; averaging after Polyak and Juditsky 1992. Explained in the
    chapter *Training and tracking*.
    """
    session = Session(config, data)
    resumed_at = session.resume()
    if tracker is None:
        tracker = _tracker(config, session.run_id) if config.track else NullTracker()
    session.run_id = tracker.run_id
    status = "FAILED"
    # GELU's slope far below zero is a denormal number, which a CPU handles slowly. The Base U-Net's backward pass
    # fills with them after some thousand steps and slows down several times (tests/benchmarks). Flushed, they are 0.
    torch.set_flush_denormal(True)
    try:
        tracker.log_params({**config.recipe(), **session.facts()})
        result = _loop(session, tracker, progress, callback, resumed_at)
        status = "FINISHED"
        return result
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        torch.set_flush_denormal(False)
        tracker.close(status)


def _loop(
    session: Session,
    tracker: Tracker,
    progress: bool,
    callback: Callback | None,
    resumed_at: int,
) -> TrainResult:
    from tqdm.auto import tqdm

    config = session.config
    total, count = torch.zeros((), device=session.device), 0
    speeds: list[float] = []
    session.begin()
    began = time.perf_counter()
    with tqdm(
        total=config.steps * config.batch_size,
        initial=session.step * config.batch_size,
        unit="img",
        unit_scale=True,
        desc=config.model,
        disable=not progress,
        mininterval=1.0,
    ) as bar:
        while session.step < config.steps:
            loss, norm = session.advance()
            total, count, step = total + loss, count + 1, session.step
            own = callback(step, session.model) if callback is not None else None
            last = step == config.steps
            if step % config.log_every == 0 or last:
                mean, gradient = (total / count).item(), norm.item()  # waits for the device
                _require_finite(mean, gradient, step)
                speed = count * config.batch_size / (time.perf_counter() - began)
                speeds.append(speed)
                tracker.log_metrics(
                    {
                        "loss": mean,
                        "grad_norm": gradient,
                        "lr": learning_rate(step - 1, config),
                        "images_per_second": speed,
                        **(own or {}),
                    },
                    step,
                )
                bar.set_postfix(loss=f"{mean:.4f}")
                bar.update(step * config.batch_size - bar.n)
                total, count = torch.zeros_like(total), 0
            if last or (config.eval_every and step % config.eval_every == 0):
                session.evaluate(tracker)
            if last or step % config.checkpoint_every == 0:
                session.save()
            if count == 0:
                began = time.perf_counter()  # evaluation and checkpoints do not count as training speed
    return _finish(session, tracker, sorted(speeds)[len(speeds) // 2] if speeds else math.nan, resumed_at)


def _finish(session: Session, tracker: Tracker, speed: float, resumed_at: int) -> TrainResult:
    """Write the averaged network beside the checkpoint and hand it over."""
    config, network = session.config, session.ema.module.eval()
    facts = {
        "recipe": config.recipe(),
        "images": session.images,
        "steps": session.step,
        "seconds": round(session.seconds, 1),
        "validation_loss": session.validation_loss,
        "sessions": session.sessions,
        "data": {"source": session.train_set.source, "sha256": session.fingerprint},
        "run_id": session.run_id,
    }
    save_model(config.folder, network, **facts)
    for name in ("model.safetensors", "config.json"):
        tracker.log_file(config.folder / name)
    if session.last_snapshot is not None:
        tracker.log_file(_gif(config, session.last_snapshot))
    return TrainResult(
        model=network,
        validation_loss=session.validation_loss,
        steps=session.step,
        images=session.images,
        seconds=session.seconds,
        images_per_second=speed,
        folder=config.folder,
        run_id=session.run_id,
        resumed_at=resumed_at,
    )


def _gif(config: TrainConfig, trajectory: Trajectory) -> Path:
    from fm_core.plotting import render_gif  # matplotlib's fonts, only needed here

    path = config.folder / "samples.gif"
    render_gif(path, {config.model: trajectory})
    return path


def _tracker(config: TrainConfig, run_id: str | None) -> MLflowTracker:
    return MLflowTracker(
        config.tracking_uri, experiment=config.experiment, run_name=f"{config.model} U-Net", run_id=run_id
    )


def _require_finite(loss: float, norm: float, step: int) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise FloatingPointError(
            f"step {step}: loss {loss}, gradient norm {norm}. The last checkpoint is untouched. Lower lr or "
            "grad_clip, or check the data for NaN, and start in another folder."
        )
