"""Training a velocity network: the recipe, the state between two steps, and one loop, read top to bottom.

The data stay whole on the device and batches are gathered there. The order of the images follows from
``(seed, epoch)``; noise and times come from one generator whose state is in the checkpoint. So on a CPU an interrupted
run ends with the same weights, bit for bit, as an uninterrupted one.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from fm_core._checks import check_choice, check_count, check_number
from fm_core.checkpoints import CheckpointError, describe, load_checkpoint, save_checkpoint, save_model
from fm_core.data import Digits, fingerprint
from fm_core.environment import provenance, resolve_device
from fm_core.losses import flow_matching_loss, validation_loss
from fm_core.models import count_parameters
from fm_core.paths import draw_noise
from fm_core.solvers import Trajectory, solve, uniform_grid
from fm_core.tracking import NullTracker, Tracker

__all__ = ["Callback", "Loss", "TrainConfig", "TrainResult", "learning_rate", "loss_name", "train"]

SNAPSHOT_SEED, SNAPSHOT_SAMPLES, SNAPSHOT_STEPS = 4321, 8, 20

Callback = Callable[[int, nn.Module], Mapping[str, float] | None]
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class TrainConfig:
    """What decides the weights, apart from the model, the data and the loss; the recipe that resuming compares.

    Attributes:
        images: training items to see in all, counted with repetition.
        batch_size: items per optimizer step.
        lr: highest learning rate.
        weight_decay: AdamW's decoupled weight decay.
        warmup: share of the steps over which the learning rate rises from zero, in [0, 1).
        grad_clip: largest norm of the gradient.
        ema_decay: decay of the exponential moving average (EMA) of the weights, in [0, 1).
        seed: of the order of the items, the noise and the times. The initial weights are the model's own: call
            ``torch.manual_seed`` before building it.
        precision: "auto", "float32" or "bfloat16" (autocast); "auto" takes bfloat16 where the device gains from it.

    Raises:
        ValueError: a value out of range, named as it was given.
    """

    images: int = 1_200_000
    batch_size: int = 128
    lr: float = 3e-3
    weight_decay: float = 0.01
    warmup: float = 0.03
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)
        check_count("images", self.images)
        check_count("seed", self.seed, least=0)
        if self.images < self.batch_size:
            raise ValueError(f"images: expected at least one batch of {self.batch_size}, got {self.images}.")
        check_number("lr", self.lr, above=0)
        check_number("grad_clip", self.grad_clip, above=0)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("warmup", self.warmup, least=0, below=1)
        check_number("ema_decay", self.ema_decay, least=0, below=1)
        check_choice("precision", self.precision, ("auto", "float32", "bfloat16"))

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.images // self.batch_size


@dataclass(frozen=True)
class TrainResult:
    """What a training run gives back.

    Attributes:
        model: the network with the EMA weights, in evaluation mode.
        validation_loss: its loss on the fixed draws.
        steps: optimizer steps taken.
        images: items seen.
        seconds: time spent, evaluation and checkpoints included, over all sessions of the run.
        images_per_second: median over the logged stretches of this session, evaluation left out; NaN if none.
        folder: folder of the run.
        run_id: id of the tracked run, or None.
        resumed_at: step at which an earlier session was resumed; 0 for a fresh start.
    """

    model: nn.Module
    validation_loss: float
    steps: int
    images: int
    seconds: float
    images_per_second: float
    folder: Path
    run_id: str | None
    resumed_at: int


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


def train(
    model: nn.Module,
    config: TrainConfig | None = None,
    *,
    data: tuple[Digits | Tensor, Digits | Tensor],
    out: str | Path,
    loss: Loss = flow_matching_loss,
    tracker: Tracker | None = None,
    device: str | torch.device = "auto",
    eval_every: int = 1000,
    eval_images: int = 2048,
    log_every: int = 50,
    checkpoint_every: int = 500,
    compile: bool = False,
    progress: bool = True,
    callback: Callback | None = None,
) -> TrainResult:
    """Train a velocity network, or resume a run that was interrupted.

    Where ``out`` holds a checkpoint of the same recipe, model and data, the run goes on from it, in the same tracked
    run.

    Args:
        model: any ``nn.Module`` with ``model(x, t)`` of the shape of x, for t of shape ``(B,)``; trained in place.
        config: the recipe; ``TrainConfig()`` if left out.
        data: training and held-out set, each ``Digits`` or a float tensor ``(N, ...)``.
        out: folder of the run, for checkpoint and weights.
        loss: called as ``loss(model, x_1, generator=...)``; ``functools.partial`` binds a coupling.
        tracker: where curves, samples and weights are logged, such as ``MLflowTracker()``; nowhere if left out.
        device: as in :func:`fm_core.resolve_device`.
        eval_every: steps between validations, each with samples of the EMA network; 0 for only after the last step.
        eval_images: held-out items in the validation loss.
        log_every: steps between points of the curves; only then numbers are read back from the device.
        checkpoint_every: steps between checkpoints.
        compile: run the network through ``torch.compile``.
        progress: show a bar.
        callback: called as ``callback(step, model)`` after each step, with the clipped gradients in place. Numbers that
            it returns, by name, are logged with the curves.

    Returns:
        The EMA network and what the run took.

    Raises:
        ValueError: a model that is no velocity for these data, fewer items than one batch, or a count below its least.
        CheckpointError: the folder's checkpoint is damaged or has another recipe; it stays as it is.
        FloatingPointError: the loss or the gradient became NaN or infinite; the last checkpoint stays as it is.

    Source: Lipman et al. 2023, section 4; averaging after Polyak and Juditsky 1992. Explained in the chapter *Training
    and tracking*.
    """
    config, device, out = config or TrainConfig(), resolve_device(device), Path(out)
    for name, value in (("log_every", log_every), ("checkpoint_every", checkpoint_every), ("eval_images", eval_images)):
        check_count(name, value)
    check_count("eval_every", eval_every, least=0)
    train_set, test_set = (_as_digits(name, part, device) for name, part in zip(("train", "test"), data, strict=True))
    if len(train_set) < config.batch_size:
        raise ValueError(f"batch_size: expected at most the {len(train_set)} training items, got {config.batch_size}.")
    if not isinstance(model, nn.Module) or not any(p.requires_grad for p in model.parameters()):
        raise ValueError(f"model: expected an nn.Module with parameters to train, got {type(model).__name__}.")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  (torch's stub lacks this form)
    _check_velocity(model, train_set.images[:2])

    run = _State(model, config, device)
    recipe = {**asdict(config), **describe(model), "loss": loss_name(loss)}
    recipe["data_sha256"] = fingerprint(train_set.images)
    file = out / "checkpoint.safetensors"
    resumed_at = run.load(file, recipe)
    tracker = tracker or NullTracker()
    made_with = provenance(device)
    bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and _gains_from_bfloat16(device))
    facts = {
        "git_commit": made_with["git_commit"],
        "device": made_with["device"],
        **{f"version.{name}": value for name, value in made_with["versions"].items()},
        "data_source": train_set.source,
        "autocast": "bfloat16" if bfloat16 else "off",
        "parameters": count_parameters(model),
        "steps": config.steps,
    }
    if run.step < config.steps:  # a finished run is only read
        run.sessions.append({"from_step": run.step, **made_with})
    forward = torch.compile(model) if compile else model
    order = _Order(len(train_set), config, device)
    total, count, speeds = torch.zeros((), device=device), 0, list[float]()
    snapshot: Trajectory | None = None

    with _tracked(tracker, run) as tracker, _denormals_flushed():
        tracker.log_params({**recipe, **facts})
        bar = tqdm(
            total=config.steps * config.batch_size, initial=run.step * config.batch_size, unit="img", unit_scale=True,
            desc=type(model).__name__, disable=not progress, mininterval=1.0,
        )  # fmt: skip
        run.clock = began = time.perf_counter()
        while run.step < config.steps:
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate(run.step, config)
            x_1 = train_set.images[order.batch(run.step)]
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                value = loss(forward, x_1, generator=run.generator)
            run.optimizer.zero_grad(set_to_none=True)
            value.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            run.optimizer.step()
            run.ema.update_parameters(model)
            run.step += 1

            total, count = total + value.detach(), count + 1
            own = callback(run.step, model) if callback is not None else None
            last = run.step == config.steps
            if run.step % log_every == 0 or last:
                mean, gradient = (total / count).item(), norm.item()  # waits for the device
                _require_finite(mean, gradient, run.step)
                speeds.append(count * config.batch_size / (time.perf_counter() - began))
                curves = {"loss": mean, "grad_norm": gradient, "lr": learning_rate(run.step - 1, config)}
                tracker.log_metrics({**curves, "images_per_second": speeds[-1], **(own or {})}, run.step)
                bar.set_postfix(loss=f"{mean:.4f}")
                bar.update(run.step * config.batch_size - bar.n)
                total, count = torch.zeros_like(total), 0
            if last or (eval_every and run.step % eval_every == 0):
                network = run.ema.module.eval()
                run.validation_loss = validation_loss(network, test_set.images[:eval_images])
                tracker.log_metrics({"validation_loss": run.validation_loss}, run.step)
                snapshot = _snapshot(network, test_set.images, tracker, run.step)
            if last or run.step % checkpoint_every == 0:
                run.save(file, recipe)
            if count == 0:
                began = time.perf_counter()  # evaluation and checkpoints do not count as training speed
        bar.close()

        save_model(
            out, run.ema.module.eval(), recipe=recipe, images=run.step * config.batch_size, steps=run.step,
            seconds=round(run.seconds, 1), validation_loss=run.validation_loss, sessions=run.sessions,
            data={"source": train_set.source, "sha256": recipe["data_sha256"]}, run_id=run.run_id,
        )  # fmt: skip
        for name in ("model.safetensors", "config.json"):
            tracker.log_file(out / name)
        if snapshot is not None and _are_images(snapshot.x[0]):
            from fm_core.plotting import render_gif

            tracker.log_file(render_gif(out / "samples.gif", {type(model).__name__: snapshot}))
    return TrainResult(
        model=run.ema.module.eval(),
        validation_loss=run.validation_loss,
        steps=run.step,
        images=run.step * config.batch_size,
        seconds=run.seconds,
        images_per_second=statistics.median_high(speeds) if speeds else math.nan,
        folder=out,
        run_id=run.run_id,
        resumed_at=resumed_at,
    )


class _State:
    """What a checkpoint holds: model, EMA, optimizer, random state, and where the run stands."""

    def __init__(self, model: nn.Module, config: TrainConfig, device: torch.device) -> None:
        self.model, self.ema = model, AveragedModel(model, multi_avg_fn=_ema(config.ema_decay))
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=device.type != "mps"
        )
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.step, self.seconds, self.clock = 0, 0.0, time.perf_counter()
        self.run_id: str | None = None
        self.sessions: list[dict[str, Any]] = []  # device, versions and commit of each stretch of the run
        self.validation_loss = math.nan

    def save(self, file: Path, recipe: Mapping[str, Any]) -> None:
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for i, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": v for name, v in slots.items()}
        tensors["random.generator"] = self.generator.get_state()
        state = {
            "recipe": recipe,
            "step": self.step,
            "seconds": self.seconds,
            "validation_loss": None if math.isnan(self.validation_loss) else self.validation_loss,
            "run_id": self.run_id,
            "sessions": self.sessions,
        }
        save_checkpoint(file, tensors, state)

    def load(self, file: Path, recipe: Mapping[str, Any]) -> int:
        """Load the checkpoint, if there is one, and return its step; CheckpointError for another recipe."""
        if not file.exists():
            return 0
        tensors, state = load_checkpoint(file)
        theirs = state["recipe"]
        different = sorted(k for k in recipe.keys() | theirs.keys() if recipe.get(k) != theirs.get(k))
        if different:
            changes = "; ".join(f"{k}: {theirs.get(k)!r} there, {recipe.get(k)!r} here" for k in different)
            raise CheckpointError(
                f"{file}: expected a checkpoint of the same recipe, got another one ({changes}). It is left untouched. "
                "Use the same recipe to resume it, or another folder with out=...."
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


class _Order:
    """Indices of each step's items: a fresh permutation each epoch, its last partial batch left out."""

    def __init__(self, items: int, config: TrainConfig, device: torch.device) -> None:
        self.items, self.size, self.seed, self.device = items, config.batch_size, config.seed, device
        self.epoch, self.permutation = -1, torch.empty(0)

    def batch(self, step: int) -> Tensor:
        epoch, i = divmod(step, self.items // self.size)
        if epoch != self.epoch:
            shuffle = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self.epoch, self.permutation = epoch, torch.randperm(self.items, generator=shuffle).to(self.device)
        return self.permutation[i * self.size : (i + 1) * self.size]


@contextmanager
def _tracked(tracker: Tracker, run: _State):
    """Open the tracker's run, the checkpoint's if it names one, and close it with the status that the body ends in."""
    run.run_id, status = tracker.start(run.run_id), "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.close(status)


@contextmanager
def _denormals_flushed():
    """GELU's slope far below zero is denormal, and CPUs are slow with such numbers: Base's backward pass would slow
    down several times after some thousand steps (tests/benchmarks). Flushed, they are 0."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _snapshot(network: nn.Module, like: Tensor, tracker: Tracker, step: int) -> Trajectory:
    """Samples of the EMA network, always from the same noise; logged as a Trajectory and, for images, as a grid."""
    noise = draw_noise((SNAPSHOT_SAMPLES, *like.shape[1:]), SNAPSHOT_SEED, like.device)
    trajectory = solve(network, noise, uniform_grid(SNAPSHOT_STEPS), progress=False)
    tracker.log_snapshot(trajectory, step)
    if _are_images(noise):
        from fm_core.plotting.images import save_image_grid

        with tempfile.TemporaryDirectory() as folder:
            tracker.log_file(save_image_grid(Path(folder) / f"step-{step:08d}.png", trajectory.x[-1]), "samples")
    return trajectory


def _are_images(x: Tensor) -> bool:
    return x.ndim == 4 and x.shape[1] == 1


def _as_digits(name: str, part: Digits | Tensor, device: torch.device) -> Digits:
    """A set on the device; a tensor becomes a set without labels."""
    images = part if isinstance(part, Tensor) else getattr(part, "images", None)
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim < 2 or len(images) == 0:
        raise ValueError(f"data: expected Digits or a float tensor (N, ...) as {name} set, got {type(part).__name__}.")
    if isinstance(part, Tensor):
        return Digits(part.to(device), torch.empty(0, dtype=torch.int64), f"tensor of shape {tuple(part.shape)}")
    return Digits(part.images.to(device), part.labels.to(device), part.source)


def _check_velocity(model: nn.Module, x: Tensor) -> None:
    """ValueError unless ``model(x, t)`` has the shape of x."""
    mode = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng():
            v = model.eval()(x, torch.linspace(0, 1, len(x), device=x.device, dtype=x.dtype))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"model: expected a velocity model(x, t) for x of shape (B, {str(tuple(x.shape[1:]))[1:]} and t of shape "
            f"(B,), got {type(error).__name__}: {error}"
        ) from error
    finally:
        model.train(mode)
    if not isinstance(v, Tensor) or v.shape != x.shape:
        got = f"shape {tuple(v.shape)}" if isinstance(v, Tensor) else type(v).__name__
        raise ValueError(f"model: expected model(x, t) of the shape of x, {tuple(x.shape)}, got {got}.")


def loss_name(loss: Loss) -> str:
    """What a checkpoint remembers of the loss: the function's name, with what a partial binds."""
    inner, bound = getattr(loss, "func", loss), getattr(loss, "keywords", {})
    name = getattr(inner, "__qualname__", type(inner).__name__)
    return ", ".join([name, *(f"{k}={getattr(v, '__qualname__', v)}" for k, v in bound.items())])


def _ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """Moving average whose memory grows with the run, so that the start does not dominate short runs."""

    def update(averaged: Any, current: Any, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))  # type: ignore[attr-defined]  (no stub)

    return update


def _gains_from_bfloat16(device: torch.device) -> bool:
    """Whether the device has matrix units for bfloat16; without them networks this small gain little, or lose."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


def _require_finite(loss: float, norm: float, step: int) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise FloatingPointError(
            f"step {step}: expected a finite loss and gradient, got loss {loss} and gradient norm {norm}. The last "
            "checkpoint is untouched. Lower lr or grad_clip, or check the data for NaN."
        )
