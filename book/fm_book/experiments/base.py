"""What all experiments share: training runs that resume, and one base class with the common fields."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fm_book.experiments.evaluation import elapsed
from fm_book.records import write_record
from fm_core._checks import check_choice
from fm_core._files import read_json, remove_parts, to_json
from fm_core.checkpoints import describe, load_model, write_atomically
from fm_core.data import Digits, load_mnist, load_sample
from fm_core.environment import resolve_device
from fm_core.losses import flow_matching_loss
from fm_core.models import UNet
from fm_core.tracking import MLflowTracker, load_history
from fm_core.training import Callback, Loss, TrainConfig, loss_name, train

__all__ = [
    "GRADIENT",
    "Experiment",
    "GradientNorms",
    "Run",
    "RunRecord",
    "curves",
    "depths",
    "train_all",
    "without_sample",
]

SAME = 0.25  # distance of two images of one digit, in grey levels of [-1, 1]; different digits are 2 and more apart
GRADIENT = "gradient/"  # prefix of the curves of GradientNorms
Splits = tuple[Digits, Digits]


@dataclass(frozen=True)
class Run:
    """One training run of an experiment.

    Attributes:
        folder: of the run.
        build: makes the network; its initial weights come from ``config.seed``.
        config: the recipe.
        log_every, eval_every, checkpoint_every, loss: as in :func:`fm_core.train`.
    """

    folder: Path
    build: Callable[[], nn.Module]
    config: TrainConfig
    log_every: int = 10
    eval_every: int = 0
    checkpoint_every: int = 50
    loss: Loss = flow_matching_loss

    def model(self) -> nn.Module:
        """The network with its initial weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return self.build()

    def recipe(self) -> dict[str, Any]:
        """Recipe and network, as a checkpoint compares them."""
        return json.loads(json.dumps({**asdict(self.config), **describe(self.model()), "loss": loss_name(self.loss)}))

    def load(self, device: torch.device, folder: Path | None = None) -> Any:
        """The trained network."""
        return load_model(folder or self.folder, device, model=self.model())

    def record(self) -> RunRecord | None:
        """What is recorded about the finished run; None if it is unfinished or had another recipe."""
        for name in ("config.json", "diverged.json"):
            saved = read_json(self.folder / name)
            if not isinstance(saved, dict):
                continue
            facts = saved.get("training") if name == "config.json" else saved
            if not isinstance(facts, dict) or not isinstance(facts.get("recipe"), dict):
                continue
            whole = name != "config.json" or (self.folder / "model.safetensors").is_file()
            if whole and facts["recipe"].items() >= self.recipe().items():
                loss = facts.get("validation_loss")
                return RunRecord(
                    sha256=saved.get("sha256", ""),
                    diverged=facts.get("diverged"),
                    seconds=facts.get("seconds", 0.0),
                    validation_loss=float("nan") if loss is None else loss,
                    run_id=facts.get("run_id"),
                    facts=facts,
                )
        return None

    def finished(self) -> RunRecord:
        """:meth:`record` of a run that has to be finished.

        Raises:
            FileNotFoundError: it is not.
        """
        if (record := self.record()) is None:
            raise FileNotFoundError(f"{self.folder}: expected a finished run, got none. Run the stage 'train' first.")
        return record


@dataclass(frozen=True)
class RunRecord:
    """A finished run: hash of its weights, why it diverged if it did, its cost and all other facts."""

    sha256: str
    diverged: str | None
    seconds: float
    validation_loss: float
    run_id: str | None
    facts: Mapping[str, Any]

    @property
    def sessions(self) -> Sequence[Mapping[str, Any]]:
        """Commit, device and versions of each stretch of the run."""
        return self.facts.get("sessions", [])


class GradientNorms:
    """Callback of :func:`fm_core.train`: norm of the clipped gradient at each depth of the U-Net.

    Args:
        every: steps between measurements; the run's ``log_every``.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def __call__(self, step: int, model: nn.Module) -> dict[str, float] | None:
        if step % self.every or not isinstance(model, UNet):
            return None
        return {f"{GRADIENT}{name}": _gradient_norm(part).item() for name, part in depths(model).items()}


def depths(model: UNet) -> dict[str, nn.Module]:
    """The parts of a U-Net from input to output, each with its upward convolution; the time embedding is last."""
    encoder = {f"encoder {level}": block for level, block in enumerate(model.encoder)}
    middle = nn.ModuleList([model.middle, model.after_middle])
    levels = range(len(model.decoder) - 1, -1, -1)
    decoder = {
        f"decoder {level}": nn.ModuleList(pair)
        for level, pair in zip(levels, zip(model.up, model.decoder, strict=True), strict=True)
    }
    return {
        "stem": model.stem,
        **encoder,
        "middle": middle,
        **decoder,
        "head": model.head,
        "time": model.embed,
    }


def _gradient_norm(part: nn.Module) -> Tensor:
    gradients = [p.grad for p in part.parameters() if p.grad is not None]
    return torch.stack([g.square().sum() for g in gradients]).sum().sqrt() if gradients else torch.zeros(())


def curves(run: Run, uri: str) -> dict[str, tuple[list[int], list[float]]]:
    """The tracked curves of a finished run, ``{name: (steps, values)}``; the gradients' norms before clipping.

    Args:
        run: finished and tracked.
        uri: MLflow's store.
    """
    run_id = run.finished().run_id
    if run_id is None:
        raise ValueError(f"{run.folder}: expected a tracked run, got one without run id. Train it with a tracker.")
    found = {k: (s.tolist(), v) for k, (s, v) in load_history(run_id, uri=uri).items()}
    parts = [k for k in found if k.startswith(GRADIENT)]
    clipped = np.sqrt(sum(found[k][1] ** 2 for k in parts))
    before = dict(zip(*found["grad_norm"], strict=True))
    scale = np.array([before[step] for step in found[parts[0]][0]]) / clipped if parts else 1.0
    return {k: (s, (v * scale if k in parts else v).tolist()) for k, (s, v) in found.items()}


def train_all(
    runs: Iterable[Run],
    data: Splits,
    *,
    uri: str | None = None,
    experiment: str = "flow-matching",
    device: str = "auto",
    callback: Callable[[Run], Callback] = lambda run: GradientNorms(run.log_every),
    log: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Train what is not finished yet, one after the other. A run that diverges is recorded as such.

    Args:
        runs: in order.
        data: training and test digits.
        uri: MLflow's store; no tracking if left out.
        experiment: MLflow experiment.
        device: as in :func:`fm_core.train`.
        callback: makes the callback of a run.
        log: gets one line per run.
    """
    for run in runs:
        if run.record() is not None:
            continue
        try:
            result = train(
                run.model(),
                run.config,
                data=data,
                out=run.folder,
                loss=run.loss,
                tracker=MLflowTracker(uri, experiment=experiment, run_name=run.folder.name) if uri else None,
                device=device,
                log_every=run.log_every,
                eval_every=run.eval_every,
                checkpoint_every=run.checkpoint_every,
                progress=sys.stderr.isatty(),
                callback=callback(run),
            )
        except FloatingPointError as error:
            facts = {"recipe": run.recipe(), "diverged": str(error)}
            write_atomically(run.folder / "diverged.json", (to_json(facts, indent=2) + "\n").encode())
            log(f"{run.folder}: diverged, {error}")
        else:
            log(
                f"{run.folder}: validation loss {result.validation_loss:.4f} after {result.images:,} images, "
                f"{result.seconds:.0f} s, {result.images_per_second:.0f} images/s"
            )


def without_sample(digits: Digits) -> Digits:
    """MNIST's training digits without the 500 test digits of the bundled sample, which are training digits of MNIST.

    Found as nearest images, since recovered copies of the files differ by a grey level here and there.

    Args:
        digits: on the CPU.
    """
    held_out = load_sample("test").images.flatten(1)
    distance, index = torch.cdist(held_out, digits.images.flatten(1)).min(dim=1)
    keep = torch.ones(len(digits), dtype=torch.bool)
    keep[index[distance < SAME]] = False
    images, labels = digits.images[keep], digits.labels[keep]
    return Digits(images, labels, f"{digits.source}, {len(labels):,} without the bundled test digits")


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """An experiment: training runs, then an evaluation that is recorded; resumes where it was interrupted.

    Attributes:
        stage: "train", "evaluate" (networks that are trained), or "all".
        out: folder of the experiments; this one's runs go to ``out/NAME``.
        data: "mnist" or "sample".
        device: "auto", "cpu", "cuda", ...
        threads: threads on a CPU; as torch chooses if left out.
    """

    name: ClassVar[str]
    stage: Literal["all", "train", "evaluate"] = "all"
    out: Path = field(default=Path("runs/experiments"))
    data: Literal["mnist", "sample"] = "mnist"
    device: str = "auto"
    threads: int | None = None

    @abstractmethod
    def runs(self) -> Mapping[Any, Run]:
        """The training runs."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that decides the recorded numbers, JSON-ready; a test compares it with the record's."""

    @abstractmethod
    def evaluate(self, data: Splits) -> dict[str, Any]:
        """The values to record, from training and test digits."""

    def train(self, data: Splits, runs: Mapping[Any, Run] | None = None) -> None:
        """Train some runs, by default every one."""
        train_all(
            (self.runs() if runs is None else runs).values(),
            data,
            uri=self.uri,
            experiment=self.name,
            device=self.device,
        )

    @property
    def folder(self) -> Path:
        """Folder of this experiment."""
        return self.out / self.name

    @property
    def uri(self) -> str:
        """MLflow's store, made if missing."""
        self.out.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{self.out.resolve().as_posix()}/mlflow.db"

    def splits(self) -> Splits:
        """Training and test digits on the device; of MNIST, without the 500 that the bundled sample tests with."""
        loaders = {"mnist": load_mnist, "sample": load_sample}
        check_choice("data", self.data, loaders)
        load = loaders[self.data]
        device = resolve_device(self.device)
        train = load(split="train", device="cpu")
        if self.data == "mnist":
            train = without_sample(train)
        train = replace(train, images=train.images.to(device), labels=train.labels.to(device))
        return train, load(split="test", device=device)

    def run(self) -> str:
        """Train, evaluate and record, as far as ``stage`` says; return one line about it.

        Raises:
            FileNotFoundError: the stage "evaluate", and a network that is not trained.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        remove_parts(self.folder, deep=True)
        data, runs = self.splits(), list(self.runs().values())
        if self.stage != "evaluate":
            self.train(data)
        if self.stage == "train":
            return f"trained {len(runs)} networks in {self.folder}"
        seconds = sum(run.finished().seconds for run in runs)
        values = self.evaluate(data)
        values["seconds"] = {"training": seconds, "evaluation": elapsed(self.folder)}
        return f"recorded in {self.record(values)}"

    def record(self, values: dict[str, Any]) -> Path:
        """Write the record."""
        return write_record(self.name, values, config=self.settings(), device=self.device)
