"""Training a velocity network: the recipe, the state between two steps, and one loop, read top to bottom.

The data stay whole on the device and batches are gathered there. The order of the images follows from
``(seed, epoch)``; noise and times come from one generator whose state is in the checkpoint. So on a CPU an interrupted
run ends with the same weights, bit for bit, as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import signal
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from fm_core._checks import check_choice, check_count, check_images, check_number, check_path, check_type, described
from fm_core._files import own_folder, to_json
from fm_core.checkpoints import (
    CheckpointError,
    check_free,
    check_recipe,
    describe,
    load_checkpoint,
    save_checkpoint,
    save_model,
)
from fm_core.data import Digits, fingerprint
from fm_core.environment import provenance, resolve_device
from fm_core.losses import flow_matching_loss, validation_loss
from fm_core.models import count_parameters
from fm_core.paths import draw_noise
from fm_core.solvers import Trajectory, solve, uniform_grid
from fm_core.tracking import GuardedTracker, MLflowTracker, NullTracker, Tracker

__all__ = ["Callback", "Loss", "TrainConfig", "TrainResult", "learning_rate", "loss_name", "train"]

SNAPSHOT_SEED, SNAPSHOT_SAMPLES, SNAPSHOT_STEPS = 4321, 8, 20
LABEL_DROPOUT = 0.1

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
        check_choice("precision", self.precision, ("auto", "float32", "bfloat16"))
        values: dict[str, float] = {
            "batch_size": check_count("batch_size", self.batch_size),
            "images": check_count("images", self.images),
            "seed": check_count("seed", self.seed, least=0, most=2**62),
            "lr": check_number("lr", self.lr, above=0),
            "grad_clip": check_number("grad_clip", self.grad_clip, above=0),
            "weight_decay": check_number("weight_decay", self.weight_decay, least=0),
            "warmup": check_number("warmup", self.warmup, least=0, below=1),
            "ema_decay": check_number("ema_decay", self.ema_decay, least=0, below=1),
        }
        for name, value in values.items():  # plain numbers, which JSON takes
            object.__setattr__(self, name, value)
        if self.images < self.batch_size:
            raise ValueError(f"images: expected at least one batch of {self.batch_size}, got {self.images}.")

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
    label_dropout: float = LABEL_DROPOUT,
    compile: bool = False,
    progress: bool = True,
    callback: Callback | None = None,
) -> TrainResult:
    """Train a velocity network, or resume a run that was interrupted.

    Where ``out`` holds a checkpoint of the same recipe, model and data, the run goes on from it, in the same tracked
    run. Ctrl-C and SIGTERM finish the step and save a checkpoint; a second one ends at once. A tracker that fails is
    warned about and tried again now and then.

    Args:
        model: any ``nn.Module`` with ``model(x, t)`` of the shape of x, for t of shape ``(B,)``; trained in place.
        config: the recipe; ``TrainConfig()`` if left out.
        data: training and held-out set, each ``Digits`` or a float tensor ``(N, ...)``.
        out: folder of the run, for checkpoint, weights and, for images, ``samples.gif``; of one process at a time.
        loss: called as ``loss(model, x_1, generator=...)``; ``functools.partial`` binds a coupling.
        tracker: where curves, samples and weights are logged, such as ``MLflowTracker()``; nowhere if left out.
        device: as in :func:`fm_core.resolve_device`.
        eval_every: steps between validations, each with samples of the EMA network; 0 for only after the last step.
        eval_images: held-out items in the validation loss.
        log_every: steps between points of the curves; only then numbers are read back from the device.
        checkpoint_every: steps between checkpoints.
        label_dropout: for a model with an attribute ``classes``, which is called as ``model(x, t, y)`` with the data's
            labels: the share of labels replaced by the null label ``classes``, so that guidance is possible.
        compile: run the network through ``torch.compile``.
        progress: show a bar.
        callback: called as ``callback(step, model)`` after each step, with the clipped gradients in place. Numbers that
            it returns, by name, are logged with the curves.

    Returns:
        The EMA network and what the run took.

    Raises:
        ValueError: a model that is no velocity for these data, fewer items than one batch, a count below its least, or
            a folder that cannot be written or that another process uses.
        CheckpointError: the folder's files are damaged, foreign or of another recipe; they stay as they are.
        FloatingPointError: a loss or the gradient became NaN or infinite; the last checkpoint stays as it is.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, once the checkpoint is saved.

    Source: Lipman et al. 2023, section 4; averaging after Polyak and Juditsky 1992. Explained in the chapter *Training
    and tracking*.
    """
    config = config or TrainConfig()
    check_type("config", config, TrainConfig, "a TrainConfig")
    device, out = resolve_device(device), check_path("out", out)
    log_every, checkpoint_every = check_count("log_every", log_every), check_count("checkpoint_every", checkpoint_every)
    eval_every, eval_images = check_count("eval_every", eval_every, least=0), check_count("eval_images", eval_images)
    if not isinstance(data, Sequence) or len(data) != 2:
        raise ValueError(f"data: expected a training and a held-out set, got {described(data)}.")
    train_set, test_set = (_as_digits(name, part, device) for name, part in zip(("train", "test"), data, strict=True))
    if len(train_set) < config.batch_size:
        raise ValueError(f"batch_size: expected at most the {len(train_set)} training items, got {config.batch_size}.")
    if not isinstance(model, nn.Module) or not any(p.requires_grad for p in model.parameters()):
        raise ValueError(f"model: expected an nn.Module with parameters to train, got {type(model).__name__}.")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  (torch's stub lacks this form)
    _check_velocity(model, train_set.images[:2])
    classes: int | None = getattr(model, "classes", None)
    label_dropout = check_number("label_dropout", label_dropout, least=0, most=1)
    if classes is not None:
        for name, part in (("train", train_set), ("test", test_set)):
            _check_data_labels(name, part, classes)

    run = _State(model, config, device)
    recipe = {**asdict(config), **describe(model), "loss": loss_name(loss)}
    recipe |= {} if classes is None else {"label_dropout": label_dropout}
    recipe = json.loads(to_json({**recipe, "data_sha256": fingerprint(train_set.images)}))
    file, images = out / "checkpoint.safetensors", _are_images(train_set.images)
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
    forward = torch.compile(model) if compile else model
    order = _Order(len(train_set), config, device)
    total, count, speeds = torch.zeros((), device=device), 0, list[float]()
    snapshot: Trajectory | None = None

    with (
        _Stop() as stop,
        _resumed(run, out, recipe) as resumed_at,
        _tracked(tracker or NullTracker(), run, file, recipe) as tracker,
        _denormals_flushed(),
        tqdm(
            total=config.steps * config.batch_size, initial=run.step * config.batch_size, unit="img", unit_scale=True,
            desc=type(model).__name__, disable=not progress, mininterval=1.0,
        ) as bar,
    ):  # fmt: skip
        tracker.log_params({**recipe, **facts})
        if run.step < config.steps:  # a finished run is only read
            run.sessions = [s for s in run.sessions if s["from_step"] < run.step]
            run.sessions.append({"from_step": run.step, **made_with})
        products = [out / name for name in ("model.safetensors", "config.json", "samples.gif")[: 3 if images else 2]]
        due = run.step == config.steps or (eval_every and run.step % eval_every == 0)
        if run.step and due and not all(product.exists() for product in products):  # perhaps killed before logging it
            snapshot = _snapshot(run.ema.module.eval(), test_set.images, tracker, run.step, out)
        run.clock = began = time.perf_counter()
        while run.step < config.steps:
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate(run.step, config)
            items = order.batch(run.step)
            velocity = forward
            if classes is not None:
                dropped = torch.rand(len(items), generator=run.generator, device=device) < label_dropout
                velocity = partial(forward, y=train_set.labels[items].masked_fill(dropped, classes))
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                value = loss(velocity, train_set.images[items], generator=run.generator)
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
                _require_finite(run.step, {"loss": mean, "gradient norm": gradient})
                speeds.append(count * config.batch_size / (time.perf_counter() - began))
                curves = {"loss": mean, "grad_norm": gradient, "lr": learning_rate(run.step - 1, config)}
                tracker.log_metrics({**curves, "images_per_second": speeds[-1], **(own or {})}, run.step)
                bar.set_postfix(loss=f"{mean:.4f}")
                bar.update(run.step * config.batch_size - bar.n)
                total, count = torch.zeros_like(total), 0
            if last or (eval_every and run.step % eval_every == 0):
                network = run.ema.module.eval()
                labels = None if classes is None else test_set.labels[:eval_images]
                run.validation_loss = validation_loss(network, test_set.images[:eval_images], y=labels)
                _require_finite(run.step, {"validation loss": run.validation_loss})
                tracker.log_metrics({"validation_loss": run.validation_loss}, run.step)
                snapshot = _snapshot(network, test_set.images, tracker, run.step, out)
            stopped = bool(stop.signal)  # asked once, so that nobody stops without a checkpoint
            if last or stopped or run.step % checkpoint_every == 0:
                run.save(file, recipe)
            tracker.flush()  # after the checkpoint, which holds the points that are not sent yet
            if stopped and not last:
                stop.check(run.step)
            if count == 0:
                began = time.perf_counter()  # evaluation and checkpoints do not count as training speed

        save_model(
            out, run.ema.module.eval(), recipe=recipe, images=run.step * config.batch_size, steps=run.step,
            seconds=round(run.seconds, 1), validation_loss=run.validation_loss, sessions=run.sessions,
            data={"source": train_set.source, "sha256": recipe["data_sha256"]}, run_id=run.run_id,
        )  # fmt: skip
        if snapshot is not None and images:
            from fm_core.plotting import render_gif

            render_gif(out / "samples.gif", {type(model).__name__: snapshot})
        for product in products:
            tracker.log_file(product)
    stop.check(run.step)
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
        self.key = uuid.uuid4().hex  # finds the tracked run of a process that was killed before it noted the id
        self.tracker = GuardedTracker(NullTracker())
        self.sessions: list[dict[str, Any]] = []  # device, versions and commit of each stretch of the run
        self.points: list[Any] = []  # of the curves, which the session before did not send
        self.validation_loss = math.nan

    def save(self, file: Path, recipe: Mapping[str, Any]) -> None:
        now, self.run_id = time.perf_counter(), self.tracker.run_id or self.run_id
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
            "key": self.key,
            "points": self.tracker.points(),
            "sessions": self.sessions,
        }
        save_checkpoint(file, tensors, state)

    def load(self, file: Path, recipe: Mapping[str, Any]) -> int:
        """Load the checkpoint, if there is one, and return its step; CheckpointError for another recipe."""
        if not file.exists():
            return 0
        tensors, state = load_checkpoint(file)
        try:
            if state["step"] == 0 and state["recipe"] != recipe:
                return 0  # nothing was trained
            check_recipe(file, state["recipe"], recipe)
            self._take(tensors, state)
        except CheckpointError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{file}: expected the state of a training run, got another ({error!r}). It is left untouched. Delete "
                "it, or choose another folder with out=...."
            ) from error
        return self.step

    def _take(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
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
        self.step, self.seconds = check_count("step", state["step"], least=0), float(state["seconds"])
        self.run_id, self.sessions = state["run_id"], list(state["sessions"])
        self.key, self.points = state.get("key", self.key), state.get("points", [])
        self.validation_loss = math.nan if state["validation_loss"] is None else state["validation_loss"]


class _Order:
    """Indices of each step's items: a fresh permutation each epoch, its last partial batch left out."""

    def __init__(self, items: int, config: TrainConfig, device: torch.device) -> None:
        self.items, self.size, self.seed, self.device = items, config.batch_size, config.seed, device
        self.epoch, self.permutation = -1, torch.empty(0)

    def batch(self, step: int) -> Tensor:
        epoch, i = divmod(step, self.items // self.size)
        if epoch != self.epoch:
            shuffle = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            self.epoch, self.permutation = epoch, torch.randperm(self.items, generator=shuffle).to(self.device)
        return self.permutation[i * self.size : (i + 1) * self.size]


class _Stop:
    """Takes SIGINT and SIGTERM for the time of its body, in the main thread; a second one ends at once.

    Attributes:
        signal: number of the signal that came, or 0.
    """

    def __enter__(self) -> _Stop:
        self.signal, self._before = 0, dict[int, Any]()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, _: object) -> None:
        again, self.signal = self.signal, number
        if again:
            self._end("")

    def check(self, step: int) -> None:
        """End the run if a signal came."""
        if self.signal:
            said = f"stopped at step {step:,}; the same command goes on from there"
            tqdm.write(said, file=sys.stderr)
            self._end(said)

    def _end(self, said: str) -> None:
        raise KeyboardInterrupt(said) if self.signal == signal.SIGINT else SystemExit(128 + self.signal)


@contextmanager
def _resumed(run: _State, out: Path, recipe: Mapping[str, Any]) -> Iterator[int]:
    """Take the folder, load its checkpoint and give its step."""
    with own_folder(out):
        check_free(out, recipe)
        yield run.load(out / "checkpoint.safetensors", recipe)


@contextmanager
def _tracked(tracker: Tracker, run: _State, file: Path, recipe: Mapping[str, Any]) -> Iterator[GuardedTracker]:
    """Open the tracker's run, the checkpoint's if it names one, and close it with the status that the body ends in.

    The key is in the checkpoint before there is a run, so that a killed process leaves none that nobody goes on with.
    """
    run.tracker, status, known = GuardedTracker(tracker, run.points), "FAILED", run.run_id
    if isinstance(tracker, MLflowTracker):
        tracker.key, tracker.scratch = run.key, file.parent
    if run.step == 0:
        run.save(file, recipe)
    run.run_id = run.tracker.start(known)
    if run.run_id != known:
        run.save(file, recipe)
    try:
        yield run.tracker
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.tracker.close(status)


@contextmanager
def _denormals_flushed():
    """GELU's slope far below zero is denormal, and CPUs are slow with such numbers: Base's backward pass would slow
    down several times after some thousand steps (tests/benchmarks). Flushed, they are 0."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _snapshot(network: Callable[..., Tensor], like: Tensor, tracker: Tracker, step: int, out: Path) -> Trajectory:
    """Samples of the EMA network, always from the same noise; logged as a Trajectory and, for images, as a grid."""
    noise = draw_noise((SNAPSHOT_SAMPLES, *like.shape[1:]), SNAPSHOT_SEED, like.device)
    if (classes := getattr(network, "classes", None)) is not None:
        network = partial(network, y=torch.arange(SNAPSHOT_SAMPLES, device=like.device) % classes)
    trajectory = solve(network, noise, uniform_grid(SNAPSHOT_STEPS), progress=False)
    tracker.log_snapshot(trajectory, step)
    if _are_images(noise):
        from fm_core.plotting.images import save_image_grid

        folder = out / ".samples.part"  # until the run ends
        folder.mkdir(parents=True, exist_ok=True)
        tracker.log_file(save_image_grid(folder / f"step-{step:08d}.png", trajectory.x[-1]), "samples")
    return trajectory


def _are_images(x: Tensor) -> bool:
    return x.ndim == 4 and x.shape[1] == 1


def _as_digits(name: str, part: Digits | Tensor, device: torch.device) -> Digits:
    """A set on the device; a tensor becomes a set without labels."""
    images = part if isinstance(part, Tensor) else getattr(part, "images", None)
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim < 2 or len(images) == 0:
        raise ValueError(f"data: expected Digits or a float tensor (N, ...) as {name} set, got {type(part).__name__}.")
    check_images(f"data, {name} set", images)
    if isinstance(part, Tensor):
        return Digits(part.to(device), torch.empty(0, dtype=torch.int64), f"tensor of shape {tuple(part.shape)}")
    return Digits(part.images.to(device), part.labels.to(device), part.source)


def _check_data_labels(name: str, part: Digits, classes: int) -> None:
    """ValueError unless every item has a label below ``classes``."""
    y = part.labels
    if len(y) != len(part.images) or y.is_floating_point() or int(y.min()) < 0 or int(y.max()) >= classes:
        got = "none" if not len(y) else f"{len(y)} from {y.min().item():g} to {y.max().item():g}"
        raise ValueError(
            f"data: expected a label from 0 to {classes - 1} for each of the {len(part.images)} items of the {name} "
            f"set, because the model has {classes} classes, got {got}. Pass Digits, or build it with classes=None."
        )


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


def _require_finite(step: int, values: Mapping[str, float]) -> None:
    if not all(math.isfinite(value) for value in values.values()):
        got = " and ".join(f"{name} {value}" for name, value in values.items())
        raise FloatingPointError(
            f"step {step}: expected finite values, got {got}. The last checkpoint is untouched. Lower lr or grad_clip, "
            "or check the data for NaN."
        )
