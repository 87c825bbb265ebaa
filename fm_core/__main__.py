"""The command line: ``python -m fm_core train|sample|gif|velocity``, each with ``--help``.

Every command is a dataclass whose fields are its options; tyro turns docstrings into the help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from fm_core.checkpoints import CheckpointError, load_model, load_pretrained
from fm_core.config import TrainConfig
from fm_core.models import MODELS, UNet
from fm_core.environment import resolve_device
from fm_core.solvers import Trajectory, solve, uniform_grid

__all__ = ["Gif", "Sample", "Velocity", "main"]

Method = Literal["euler", "midpoint", "heun", "rk4", "dopri5"]
Pacing = Literal["linear", "quadratic", "inverse_quadratic", "logarithmic", "reverse_logarithmic"]


@dataclass(frozen=True)
class Sample:
    """Draw digits and write them as one picture.

    Attributes:
        model: "base", "residual" or the folder of a run.
        digits: how many.
        steps: solver steps.
        method: solver.
        seed: of the noise.
        out: picture to write.
        device: "auto", "cpu", "cuda", ...
    """

    model: str = "residual"
    digits: int = 64
    steps: int = 20
    method: Method = "euler"
    seed: int = 0
    out: Path = Path("samples.png")
    device: str = "auto"

    def run(self) -> str:
        from torchvision.utils import save_image

        trajectory = _draw(self.model, self.digits, self.steps, self.method, self.seed, self.device, keep=False)
        _folder_of(self.out)
        save_image(
            trajectory.x[-1], self.out, nrow=max(1, round(self.digits**0.5)), normalize=True, value_range=(-1, 1)
        )
        return f"{self.digits} digits of {self.model}, {self.method}, NFE {trajectory.nfe}: {self.out}"


@dataclass(frozen=True)
class Gif:
    """Draw the same noise with several networks and write the comparison as a GIF, one row a network.

    Attributes:
        models: "base", "residual" or folders of runs; the first is the upper row.
        runs: ids of MLflow runs instead of models: their last snapshots are drawn.
        tracking_uri: MLflow's store of the runs; $MLFLOW_TRACKING_URI or sqlite:///mlflow.db if left out.
        samples: digits in a row.
        steps: solver steps (for models; runs have theirs recorded).
        method: solver (for models).
        seed: of the noise (for models).
        frames: frames of the film.
        pacing: how film time runs over flow time.
        arrows: draw where ink arrives.
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
        from fm_core.tracking import load_snapshots, run_name

        if self.runs:
            rows = {run_name(r, uri=self.tracking_uri): load_snapshots(r, uri=self.tracking_uri) for r in self.runs}
            if len(rows) < len(self.runs):
                rows = {r: load_snapshots(r, uri=self.tracking_uri) for r in self.runs}
        else:
            rows = {
                _title(m): _draw(m, self.samples, self.steps, self.method, self.seed, self.device) for m in self.models
            }
        _folder_of(self.out)
        render_gif(
            self.out,
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
        model: "base", "residual" or the folder of a run.
        times: moments to show, in [0, 1]; the nearest solver steps are taken.
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

        trajectory = _draw(self.model, 1, self.steps, self.method, self.seed, self.device)
        _folder_of(self.out)
        figure = plot_trajectory(trajectory, times=list(self.times), factor=self.factor)
        figure.savefig(self.out, dpi=150, bbox_inches="tight")
        return f"velocity of {self.model}, {self.method}, NFE {trajectory.nfe}: {self.out}"


@dataclass(frozen=True)
class Train(TrainConfig):
    __doc__ = (
        "Train a network, or go on with a training that was interrupted.\n\n"
        + ((TrainConfig.__doc__ or "").split("\n\n", 1)[1])
    )

    def run(self) -> str:
        from fm_core.training import train

        result = train(self)
        return (
            f"{self.model}: validation loss {result.validation_loss:.4f} after {result.images:,} images and "
            f"{result.seconds:,.0f} s; network in {result.folder}"
            + (f", MLflow run {result.run_id}" if result.run_id else "")
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and print one line about what it wrote; mistakes end with a message and exit code 2."""
    import sys

    import tyro

    commands = {"train": Train, "sample": Sample, "gif": Gif, "velocity": Velocity}
    try:
        print(tyro.extras.subcommand_cli_from_dict(commands, prog="python -m fm_core", args=arguments).run())
    except (CheckpointError, FileNotFoundError, ValueError) as error:
        print(f"python -m fm_core: {error}", file=sys.stderr)
        return 2
    return 0


def _load(model: str, device: str) -> UNet:
    if model in MODELS:
        return load_pretrained(model, resolve_device(device))
    if not (Path(model) / "config.json").is_file():
        raise FileNotFoundError(
            f"model={model!r} is neither a published network ({', '.join(MODELS)}) nor a folder with config.json and "
            "model.safetensors, which `python -m fm_core train --out FOLDER` writes."
        )
    return load_model(model, resolve_device(device))


def _draw(model: str, digits: int, steps: int, method: str, seed: int, device: str, *, keep: bool = True) -> Trajectory:
    """Digits from the same noise on every device."""
    network = _load(model, device)
    noise = torch.randn(digits, network.channels, 28, 28, generator=torch.Generator().manual_seed(seed))
    return solve(network, noise.to(resolve_device(device)), uniform_grid(steps), method=method, keep=keep)


def _title(model: str) -> str:
    return f"{model.capitalize()} U-Net" if model in MODELS else Path(model).name


def _folder_of(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    raise SystemExit(main())
