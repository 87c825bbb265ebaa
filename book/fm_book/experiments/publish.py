"""Train the published networks with one recipe and put them into the package.

The recipe is :class:`fm_core.TrainConfig` as it stands. Each network's EMA weights go to ``fm_core/pretrained/NAME`` in
half precision, with configuration, curves and model card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from fm_book.experiments.base import Experiment, Run, Splits, train_all
from fm_core._files import to_json
from fm_core.checkpoints import load_model, pretrained_folder, save_model, write_atomically
from fm_core.models import MODELS, UNet, summary
from fm_core.paths import draw_noise
from fm_core.solvers import sample
from fm_core.tracking import load_history
from fm_core.training import TrainConfig

__all__ = ["TrainPublished", "publish"]

CURVES = ("loss", "validation_loss", "grad_norm", "lr", "images_per_second")


@dataclass(frozen=True, kw_only=True)
class TrainPublished(Experiment):
    """Train the published networks on MNIST and put them into the package.

    Attributes:
        models: networks to train.
        images: training images each network sees.
    """

    name: ClassVar[str] = "train-published"
    models: tuple[str, ...] = ("base", "residual")
    images: int = TrainConfig.images

    def runs(self) -> dict[str, Run]:
        """The training runs by network."""
        config = TrainConfig(images=self.images)
        return {
            name: Run(self.folder / name, MODELS[name], config, log_every=50, eval_every=1000, checkpoint_every=500)
            for name in self.models
        }

    def settings(self) -> dict[str, Any]:
        return {name: asdict(run.config) for name, run in self.runs().items()}

    def train(self, data: Splits, runs: Mapping[Any, Run] | None = None) -> None:
        """Train some runs, by default every one, without gradient norms."""
        train_all(
            (self.runs() if runs is None else runs).values(),
            data,
            uri=self.uri,
            experiment=self.name,
            device=self.device,
            callback=lambda _: lambda *_: None,
        )

    def evaluate(self, data: Splits) -> dict[str, Any]:
        return {"networks": {name: publish(name, run, self.uri) for name, run in self.runs().items()}}


def publish(name: str, run: Run, uri: str) -> dict[str, Any]:
    """Put a trained network into the package and return what is recorded about it.

    Args:
        name: of the published network.
        run: finished.
        uri: MLflow's store that holds the run.
    """
    folder, record = pretrained_folder(name), run.finished()
    training, model = dict(record.facts), run.load(torch.device("cpu"))
    history = load_history(record.run_id, uri=uri) if record.run_id else {}
    curves = {k: {"step": s.tolist(), "value": [float(f"{x:.6g}") for x in v]} for k, (s, v) in history.items()}
    curves = {k: curves[k] for k in CURVES if k in curves}
    if "loss" in curves:
        tail = curves["loss"]["value"][-20:]
        training["final_training_loss"] = sum(tail) / len(tail)
    save_model(folder, model, half=True)
    training["half_precision_change"] = _change(model, load_model(folder))
    save_model(folder, model, half=True, **training)
    write_atomically(folder / "history.json", (to_json(curves) + "\n").encode())
    write_atomically(folder / "README.md", _card(name, model, training).encode())
    return training | {"parameters": summary(model).parameters, "flops": summary(model).flops}


def _change(full: nn.Module, half: nn.Module) -> float:
    """Largest change of any pixel of 64 digits, in grey levels of 255, with the weights stored in half precision."""
    a, b = (sample(model, draw_noise((64, 1, 28, 28)), 20, progress=False) for model in (full, half))
    return float((a - b).abs().max() * 127.5)


def _card(name: str, model: UNet, training: dict[str, Any]) -> str:
    size, recipe = summary(model), training["recipe"]
    last = training["sessions"][-1]
    versions = ", ".join(f"{k} {v}" for k, v in last["versions"].items())
    commits = ", then ".join(f"`{s['git_commit']}` from step {s['from_step']:,}" for s in training["sessions"])
    final = training.get("final_training_loss", float("nan"))
    return f"""# {name.capitalize()} U-Net

A velocity network for flow matching on MNIST, one of the two that this book compares. Load it with
`fm_core.load_pretrained("{name}")`. This card is written by `python -m fm_book.experiments train-published`.

| | |
| --- | --- |
| network | `{size.name}`, widths {model.widths}, time embedding {model.time_dim} |
| parameters | {size.parameters:,} |
| FLOPs per 28×28 image | {size.flops:,} (a multiply-add counts as two) |
| data | {training["data"]["source"]}; SHA-256 `{training["data"]["sha256"]}` |
| images seen | {training["images"]:,} in {training["steps"]:,} steps of {recipe["batch_size"]} |
| recipe | AdamW, lr {recipe["lr"]:g} with warm-up over {recipe["warmup"]:.0%} and cosine to 0, weight decay \
{recipe["weight_decay"]:g}, gradient norm at most {recipe["grad_clip"]:g}, EMA with decay {recipe["ema_decay"]:g}, \
seed {recipe["seed"]} |
| training loss | {final:.4f} (mean of the last thousand steps) |
| validation loss | {training["validation_loss"]:.4f} (EMA weights, fixed noise and times, 2,048 test digits) |
| device | {last["device"]} |
| time | {training["seconds"]:,.0f} s, on a machine that did other work at the same time |
| code | commit {commits}; {versions} |
| weights | `model.safetensors`, EMA weights in half precision; this changes no pixel of 64 sampled digits by \
more than {training["half_precision_change"]:.1f} of 255 grey levels |

**The training images** were recovered from PNG copies of MNIST and differ a little from the official files; the chapter
*Residual vs. Base* says by how much.

**Limits.** Trained on 28×28 digits of one data set, for teaching; not conditioned on the class. Samples are not always
legible, and the loss is an average over all times: it says little about rare failures. Not meant to recognise,
authenticate or forge handwriting.
"""
