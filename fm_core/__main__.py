"""The command line: ``python -m fm_core train|sample|pairs|gif|velocity``, each with ``--help``.

A command is a dataclass whose fields are its options; tyro turns docstrings into the help.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from io import TextIOWrapper
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

import torch

from fm_core._checks import check_count, missing_extra
from fm_core._files import atomic_file
from fm_core.checkpoints import load_model, model_card, pretrained_folder, pretrained_names
from fm_core.data import load_digits, load_mnist, load_sample
from fm_core.environment import resolve_device
from fm_core.few_steps import draw_pairs
from fm_core.guidance import guided
from fm_core.models import UNet, build_model
from fm_core.paths import draw_noise
from fm_core.solvers import Trajectory, sample, solve, uniform_grid
from fm_core.tracking import MLflowTracker, NullTracker, load_snapshots, run_name
from fm_core.training import LABEL_DROPOUT, TrainConfig, train

__all__ = ["Gif", "Pairs", "Sample", "Train", "Velocity", "main", "run_command"]

Method = Literal["euler", "midpoint", "heun", "rk4", "dopri5"]
Pacing = Literal["linear", "quadratic", "inverse_quadratic", "logarithmic", "reverse_logarithmic"]
LOADERS = {"auto": load_digits, "mnist": load_mnist, "sample": load_sample}


@dataclass(frozen=True)
class Train(TrainConfig):
    """Train a network on MNIST, or resume a run that was interrupted.

    Attributes:
        images: training images to see in all, counted with repetition.
        batch_size: images per optimizer step.
        lr: highest learning rate.
        weight_decay: AdamW's decoupled weight decay.
        warmup: share of the steps over which the learning rate rises from zero, in [0, 1).
        grad_clip: largest norm of the gradient.
        ema_decay: decay of the moving average of the weights, in [0, 1).
        seed: of the weights, the order of the images, the noise and the times.
        precision: "auto" takes bfloat16 where the device gains from it.
        model: network.
        widths: channels of each level, from full resolution down.
        time_dim: width of the time embedding.
        classes: number of labels that the network takes, 10 for digits; none if left out.
        label_dropout: share of the labels that training replaces by "no label".
        data: "auto" is MNIST, else the bundled sample.
        out: folder of the run; runs/MODEL if left out.
        device: "auto", "cpu", "cuda", ...
        compile: run the network through torch.compile.
        log_every: steps between points of the curves.
        eval_every: steps between validations; 0 for only after the last step.
        checkpoint_every: steps between checkpoints.
        track: record the run with MLflow.
        tracking_uri: MLflow's store; $MLFLOW_TRACKING_URI or sqlite:///mlflow.db if left out.
        experiment: MLflow experiment.
    """

    model: Literal["base", "residual"] = "residual"
    widths: tuple[int, ...] = (16, 32, 64, 128)
    time_dim: int = 128
    classes: int | None = None
    label_dropout: float = LABEL_DROPOUT
    data: Literal["auto", "mnist", "sample"] = "auto"
    out: Path | None = None
    device: str = "auto"
    compile: bool = False
    log_every: int = 50
    eval_every: int = 1000
    checkpoint_every: int = 500
    track: bool = True
    tracking_uri: str | None = None
    experiment: str = "flow-matching"

    def run(self) -> str:
        load, device = LOADERS[self.data], resolve_device(self.device)
        config = TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})
        torch.manual_seed(self.seed)
        network = build_model(self.model, widths=self.widths, time_dim=self.time_dim, classes=self.classes)
        name = f"{self.model} U-Net"
        result = train(
            network,
            config,
            data=(load(split="train", device=device), load(split="test", device=device)),
            out=self.out or Path("runs") / self.model,
            tracker=MLflowTracker(self.tracking_uri, experiment=self.experiment, run_name=name)
            if self.track
            else NullTracker(),
            device=device,
            compile=self.compile,
            log_every=self.log_every,
            eval_every=self.eval_every,
            checkpoint_every=self.checkpoint_every,
            label_dropout=self.label_dropout,
        )
        return (
            f"{self.model}: validation loss {result.validation_loss:.4f} after {result.images:,} images and "
            f"{result.seconds:,.0f} s; network in {result.folder}"
            + (f", MLflow run {result.run_id}" if result.run_id else "")
        )


@dataclass(frozen=True)
class Sample:
    """Draw digits and write them as one picture.

    Attributes:
        model: name of a published network, such as "residual", or the folder of a run.
        labels: digits to draw, taken in turn, for a network with labels; left out, it draws any.
        guidance: scale of the guidance; 1 is none.
        digits: how many.
        steps: solver steps.
        method: solver.
        seed: of the noise.
        out: picture to write.
        device: "auto", "cpu", "cuda", ...
    """

    model: str = "residual"
    labels: tuple[int, ...] = ()
    guidance: float = 2.0
    digits: int = 64
    steps: int = 20
    method: Method = "euler"
    seed: int = 0
    out: Path = Path("samples.png")
    device: str = "auto"

    def run(self) -> str:
        from fm_core.plotting.images import save_image_grid

        out, noise = _writable(self.out), _noise("digits", self.digits, self.seed, self.device)
        network, asked = _network(self.model, self.device), ""
        velocity = network
        if self.labels:
            in_turn = torch.tensor(self.labels).repeat(self.digits)[: self.digits]
            velocity = guided(network, in_turn, self.guidance)
            asked = f" asked for {', '.join(map(str, self.labels))}, guidance {self.guidance:g},"
        save_image_grid(out, sample(velocity, noise, self.steps, method=self.method))
        return f"{self.digits} digits of {self.model},{asked} {self.method}, {self.steps} steps: {self.out}"


@dataclass(frozen=True)
class Pairs:
    """Draw samples and keep them with their noise, to train a straighter flow on them (reflow); a stopped call goes on.

    Attributes:
        model: name of a published network, such as "residual", or the folder of a run.
        count: pairs in all.
        steps: solver steps.
        method: solver.
        out: folder of the pairs; runs/pairs if left out.
        device: "auto", "cpu", "cuda", ...
    """

    model: str = "residual"
    count: int = 50_000
    steps: int = 20
    method: Method = "euler"
    out: Path = Path("runs/pairs")
    device: str = "auto"

    def run(self) -> str:
        network, device = _network(self.model, self.device), resolve_device(self.device)
        name = f"{self.model} {model_card(_folder(self.model))['sha256']}"
        count = draw_pairs(
            network, self.out, name=name, count=self.count, steps=self.steps, method=self.method, device=device,
            progress=True,
        )  # fmt: skip
        return f"{count:,} pairs of {self.model}, {self.method}, {self.steps} steps: {self.out}"


@dataclass(frozen=True)
class Gif:
    """Draw the same noise with several networks and write the comparison as a GIF, one row a network.

    Attributes:
        models: names of published networks or folders of runs; the first is the upper row.
        runs: ids of MLflow runs instead of models: their last snapshots are drawn.
        tracking_uri: MLflow's store of the runs; $MLFLOW_TRACKING_URI or sqlite:///mlflow.db if left out.
        samples: digits in a row.
        steps: solver steps (for models; runs have theirs recorded).
        method: solver (for models).
        seed: of the noise (for models).
        frames: frames of the film.
        pacing: how film time runs over flow time.
        arrows: draw the gradient of the block-averaged velocity.
        fps: frames per second.
        out: GIF to write.
        device: "auto", "cpu", "cuda", ...
    """

    models: tuple[str, ...] = ("residual", "base")
    runs: tuple[str, ...] = ()
    tracking_uri: str | None = None
    samples: int = 6
    steps: int = 60
    method: Method = "euler"
    seed: int = 0
    frames: int = 60
    pacing: Pacing = "linear"
    arrows: bool = True
    fps: float = 20
    out: Path = Path("comparison.gif")
    device: str = "auto"

    def run(self) -> str:
        from fm_core.plotting import render_gif

        out = _writable(self.out)
        if not (self.runs or self.models):
            raise ValueError("models: expected at least one of them or of runs, got none.")
        if self.runs:
            found = [(run_name(r, uri=self.tracking_uri), load_snapshots(r, uri=self.tracking_uri)) for r in self.runs]
        else:
            found = [
                (_title(m), _trajectory(m, self.samples, self.steps, self.method, self.seed, self.device))
                for m in self.models
            ]
        names = [name for name, _ in found]
        sources = self.runs or self.models  # tell rows of the same name apart
        rows = {
            name if names.count(name) == 1 else f"{name} ({source})": trajectory
            for (name, trajectory), source in zip(found, sources, strict=True)
        }
        render_gif(
            out,
            rows,
            samples=min(self.samples, *(trajectory.x.shape[1] for trajectory in rows.values())),
            frames=self.frames,
            pacing=self.pacing,
            arrows=self.arrows,
            fps=self.fps,
        )
        return f"{' above '.join(rows)}: {self.out}"


@dataclass(frozen=True)
class Velocity:
    """Draw states and velocity fields of one digit over time and write them as one figure.

    Attributes:
        model: name of a published network, such as "residual", or the folder of a run.
        times: times to show, in [0, 1]; the nearest solver steps are taken.
        steps: solver steps.
        method: solver.
        seed: of the noise.
        factor: side of the blocks over which the arrows' velocity is averaged, in pixels.
        out: picture to write.
        device: "auto", "cpu", "cuda", ...
    """

    model: str = "residual"
    times: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    steps: int = 100
    method: Method = "euler"
    seed: int = 0
    factor: int = 4
    out: Path = Path("velocity.png")
    device: str = "auto"

    def run(self) -> str:
        from fm_core.plotting import plot_trajectory

        out = _writable(self.out)
        trajectory = _trajectory(self.model, 1, self.steps, self.method, self.seed, self.device)
        figure = plot_trajectory(trajectory, times=list(self.times), factor=self.factor)
        with atomic_file(out) as part:
            figure.savefig(part, dpi=150, bbox_inches="tight")
        return f"velocity of {self.model}, {self.method}, NFE {trajectory.nfe}: {self.out}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; see :func:`run_command`."""
    try:
        import tyro
    except ImportError as error:
        raise missing_extra("The command line", "cli") from error
    commands = {"train": Train, "sample": Sample, "pairs": Pairs, "gif": Gif, "velocity": Velocity}
    prog = "python -m fm_core"
    return run_command(prog, lambda: tyro.extras.subcommand_cli_from_dict(commands, prog=prog, args=arguments).run())


def run_command(prog: str, work: Callable[[], str]) -> int:
    """Print what ``work`` returns, or one line about what went wrong.

    Args:
        prog: what the user typed, for the error.
        work: what to do.

    Returns:
        The exit code: 0; 2 after an error that a user can mend; 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a path that the terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        print(work())
    except KeyboardInterrupt as stop:
        if not any(stop.args):  # train() has said where it stopped
            print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    except (FloatingPointError, ImportError, MemoryError, OSError, ValueError, torch.OutOfMemoryError) as error:
        print(f"{prog}: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


def _network(model: str, device: str) -> UNet:
    return load_model(_folder(model), resolve_device(device))


def _folder(model: str) -> Path:
    """Folder of a published network or of a run."""
    if model in pretrained_names():
        return pretrained_folder(model)
    if not (Path(model) / "config.json").is_file():
        raise FileNotFoundError(
            f"model: expected one of {', '.join(pretrained_names())} or the folder of a run with config.json and "
            f"model.safetensors, got {model!r}. `python -m fm_core train --out FOLDER` writes one."
        )
    return Path(model)


def _noise(name: str, count: int, seed: int, device: str) -> torch.Tensor:
    if check_count(name, count) > 65_536:
        raise ValueError(f"{name}: expected at most 65,536 in one picture, got {count:,}.")
    return draw_noise((count, 1, 28, 28), seed, resolve_device(device))


def _trajectory(model: str, digits: int, steps: int, method: str, seed: int, device: str) -> Trajectory:
    noise = _noise("samples", digits, seed, device)
    return solve(_network(model, device), noise, uniform_grid(steps), method=method)


def _title(model: str) -> str:
    return f"{model.capitalize()} U-Net" if model in pretrained_names() else Path(model).name


def _writable(path: Path) -> Path:
    """The path, if a file can be written there; its folder is made. Asked before the work, not after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        with NamedTemporaryFile(dir=path.parent):
            return path
    except (OSError, ValueError) as error:
        raise ValueError(f"out: expected a file that can be written, got {str(path)!r} ({error}).") from error


if __name__ == "__main__":
    raise SystemExit(main())
