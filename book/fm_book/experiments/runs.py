"""Many trainings in a row, each in its own folder, each taken up where it was left and never repeated once finished."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fm_core.checkpoints import write_atomically
from fm_core.config import TrainConfig
from fm_core.data import Digits, load_mnist, load_sample
from fm_book.experiments.evaluation import spent
from fm_book.records import write_record
from fm_core.models import UNet
from fm_core.environment import resolve_device
from fm_core.tracking import load_history
from fm_core.training import Callback, train

__all__ = [
    "GRADIENT",
    "GradientNorms",
    "curves",
    "depths",
    "digits",
    "finished",
    "run_stages",
    "store",
    "train_all",
]

GRADIENT = "gradient/"  # prefix of the curves of GradientNorms


class GradientNorms:
    """A training's callback: the norm of the clipped gradient at each depth of the U-Net, in the order of the signal.

    Clipping scales all depths alike: times ``grad_norm`` over the norm of all depths together, the logged numbers are
    the norms before it.

    Args:
        every: steps between looks; the run's ``log_every``.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def __call__(self, step: int, model: UNet) -> Mapping[str, float] | None:
        if step % self.every:
            return None
        norms = {name: _gradient_norm(part) for name, part in depths(model).items()}
        return {f"{GRADIENT}{name}": value.item() for name, value in norms.items()}


def depths(model: UNet) -> dict[str, nn.Module]:
    """The parts of a U-Net from input to output, each with its upward convolution; the time embedding is last."""
    encoder = {f"encoder {level}": block for level, block in enumerate(model.encoder)}
    middle = nn.ModuleList([model.middle, model.after_middle])
    levels = range(len(model.decoder) - 1, -1, -1)
    decoder = {
        f"decoder {level}": nn.ModuleList(pair)
        for level, pair in zip(levels, zip(model.up, model.decoder, strict=True), strict=True)
    }
    return {"stem": model.stem, **encoder, "middle": middle, **decoder, "head": model.head, "time": model.embed}


def _gradient_norm(part: nn.Module) -> torch.Tensor:
    gradients = [p.grad for p in part.parameters() if p.grad is not None]
    return torch.stack([g.square().sum() for g in gradients]).sum().sqrt() if gradients else torch.zeros(())


def curves(config: TrainConfig) -> dict[str, tuple[list[int], list[float]]]:
    """The recorded curves of a finished run, ``{name: (steps, values)}``; the gradients' norms before clipping.

    Args:
        config: of the run, tracked.
    """
    run_id = (finished(config) or {}).get("run_id")
    if run_id is None:
        raise ValueError(f"{config.folder}: no finished, tracked run of this recipe; train it first.")
    found = {k: (s.tolist(), v) for k, (s, v) in load_history(run_id, uri=config.tracking_uri).items()}
    parts = [k for k in found if k.startswith(GRADIENT)]
    clipped = np.sqrt(sum(found[k][1] ** 2 for k in parts))
    before = dict(zip(*found["grad_norm"], strict=True))
    scale = np.array([before[step] for step in found[parts[0]][0]]) / clipped if parts else 1.0
    return {k: (s, (v * scale if k in parts else v).tolist()) for k, (s, v) in found.items()}


def store(out: Path) -> str:
    """MLflow's store of an experiment's folder."""
    out.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{out.resolve()}/mlflow.db"


def digits(data: str, device: str) -> tuple[Digits, Digits]:
    """Training and test digits, ``"mnist"`` or the bundled ``"sample"``."""
    load = {"mnist": load_mnist, "sample": load_sample}[data]
    train_set, test_set = (load(split=split, device=resolve_device(device)) for split in ("train", "test"))
    return train_set, test_set


def finished(config: TrainConfig) -> dict[str, Any] | None:
    """What is recorded about a run that is over, with ``"diverged"`` if it broke off; None if there is more to do.

    Args:
        config: of the run; one with another recipe counts as not begun.
    """
    for name, read in (("config.json", lambda found: found["training"]), ("diverged.json", lambda found: found)):
        path = config.folder / name
        if path.is_file():
            facts = read(json.loads(path.read_text()))
            if facts["recipe"] == config.recipe():
                return facts
    return None


def train_all(
    configs: Iterable[TrainConfig],
    data: tuple[Digits, Digits],
    *,
    callback: Callable[[TrainConfig], Callback] = lambda config: GradientNorms(config.log_every),
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Train what is not finished yet, one after the other. A training that diverges is recorded as such.

    Args:
        configs: the runs, in order.
        data: training and test digits.
        callback: makes the callback of a run from its recipe.
        say: told one line per run.
    """
    for config in configs:
        if finished(config) is not None:
            continue
        try:
            result = train(config, data=data, progress=sys.stderr.isatty(), callback=callback(config))
        except FloatingPointError as error:
            facts = {"recipe": config.recipe(), "diverged": str(error)}
            write_atomically(config.folder / "diverged.json", (json.dumps(facts, indent=2) + "\n").encode())
            say(f"{config.folder}: diverged, {error}")
        else:
            say(
                f"{config.folder}: validation loss {result.validation_loss:.4f} after {result.images:,} images, "
                f"{result.seconds:.0f} s, {result.images_per_second:.0f} images/s"
            )


def run_stages(name: str, experiment: Any) -> str:
    """Train what an experiment names, then evaluate and record it, as far as ``experiment.stage`` says.

    Args:
        name: of the experiment, of its record and of its folder.
        experiment: with the fields ``stage``, ``out``, ``data``, ``device`` and ``threads``, with ``configs()`` (its
            trainings), ``config()`` (what decides its numbers) and ``evaluate(data)`` (the numbers), and with
            ``train(data)`` where it does more than :func:`train_all`.

    Returns:
        One line about what was done.

    Raises:
        FileNotFoundError: the stage "evaluate", and a network that is not trained.
    """
    if experiment.threads:
        torch.set_num_threads(experiment.threads)
    data = digits(experiment.data, experiment.device)
    configs = list(experiment.configs().values())
    if experiment.stage != "evaluate":
        getattr(experiment, "train", partial(train_all, configs))(data)
    if experiment.stage == "train":
        return f"trained {len(configs)} networks in {experiment.out / name}"
    missing = [str(config.folder) for config in configs if finished(config) is None]
    if missing:
        raise FileNotFoundError(f"not trained yet: {', '.join(missing)}. Run the stage 'train' first.")
    values = experiment.evaluate(data)
    trained = sum((finished(config) or {}).get("seconds", 0.0) for config in configs)
    values["seconds"] = {"training": trained, "evaluation": spent(experiment.out / name)}
    return f"recorded in {write_record(name, values, config=experiment.config(), device=experiment.device)}"
