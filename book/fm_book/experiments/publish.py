"""Train the published networks with one recipe and put them into the package.

Base and Residual are trained from nothing with :class:`fm_core.TrainConfig` as it stands; the others start with the
weights of the published Residual. Each network's EMA weights go to ``fm_core/pretrained/NAME`` in half precision, with
configuration, curves and model card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from fm_book.experiments.base import Experiment, Run, Splits, train_all
from fm_book.experiments.losses import times_loss
from fm_book.records import RESULTS, write_record
from fm_core._files import read_json, to_json
from fm_core.checkpoints import PRETRAINED, load_model, load_pretrained, save_model, write_atomically
from fm_core.few_steps import mean_flow_loss, mean_flow_network, mean_flow_sample
from fm_core.losses import flow_matching_loss
from fm_core.models import BaseUNet, MeanFlowUNet, ResidualUNet, UNet, summary
from fm_core.paths import draw_noise
from fm_core.solvers import sample
from fm_core.tracking import load_history
from fm_core.training import Loss, TrainConfig

__all__ = ["PUBLISHED", "Published", "TrainPublished", "publish"]

CURVES = ("loss", "validation_loss", "grad_norm", "lr", "images_per_second")


@dataclass(frozen=True)
class Published:
    """A published network.

    Attributes:
        title: of the network, in its card.
        about: what it is for; the card's first sentence.
        build: makes it with its initial weights.
        config: the recipe; the seed is 0.
        loss: that it is trained with.
    """

    title: str
    about: str
    build: Callable[[], nn.Module]
    config: TrainConfig = field(default_factory=TrainConfig)
    loss: Loss = flow_matching_loss


def labelled_network() -> ResidualUNet:
    """A Residual U-Net with ten labels that starts with the published weights; its label embedding is random."""
    network = ResidualUNet(classes=10)
    network.load_state_dict(load_pretrained("residual").state_dict(), strict=False)
    return network


PUBLISHED: dict[str, Published] = {
    "base": Published("Base U-Net", "one of the two networks that this book compares", BaseUNet),
    "residual": Published("Residual U-Net", "one of the two networks that this book compares", ResidualUNet),
    "residual-labels": Published(
        "Residual U-Net with labels",
        "the published Residual U-Net, trained further with the digits' labels (`model(x, t, y)`; label 10 stands for "
        "no label)",
        labelled_network,
        TrainConfig(images=400_000, batch_size=64, lr=1e-3),
        times_loss,
    ),
    "mean-flow": Published(
        "MeanFlow U-Net",
        "the published Residual U-Net, trained further to predict average velocities (`mean_flow_sample(model, noise, "
        "steps=1)`)",
        lambda: mean_flow_network(load_pretrained("residual")),  # type: ignore[arg-type]
        TrainConfig(images=250_000, batch_size=64, lr=1e-3),
        mean_flow_loss,
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrainPublished(Experiment):
    """Train the published networks on MNIST and put them into the package.

    Attributes:
        models: networks to train, by name.
        images: training images each network sees; those of its recipe if left out.
        networks: what can be trained.
    """

    name: ClassVar[str] = "train-published"
    models: tuple[str, ...] = ("base", "residual", "residual-labels")
    images: int | None = None
    networks: Annotated[Mapping[str, Published], Suppress] = field(default_factory=lambda: dict(PUBLISHED))

    def runs(self) -> dict[str, Run]:
        """The training runs by network."""
        return {
            name: Run(
                self.folder / name,
                self.networks[name].build,
                self.networks[name].config
                if self.images is None
                else replace(self.networks[name].config, images=self.images),
                log_every=50,
                eval_every=1000,
                checkpoint_every=500,
                loss=self.networks[name].loss,
            )
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

    def record(self, values: dict[str, Any]) -> Path:
        """Write the record; it keeps the networks that this run did not train."""
        kept = read_json(RESULTS / f"{self.name}.json")
        networks = {**(kept["networks"] if isinstance(kept, dict) else {}), **values["networks"]}
        return write_record(self.name, {**values, "networks": networks}, device=self.device)

    def evaluate(self, data: Splits) -> dict[str, Any]:
        return {
            "networks": {name: publish(name, self.networks[name], run, self.uri) for name, run in self.runs().items()}
        }


def publish(name: str, network: Published, run: Run, uri: str) -> dict[str, Any]:
    """Put a trained network into the package and return what is recorded about it.

    Args:
        name: of the published network.
        network: for its card.
        run: finished.
        uri: MLflow's store that holds the run.
    """
    folder, record = PRETRAINED / name, run.finished()
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
    write_atomically(folder / "README.md", _card(name, network, model, training).encode())
    return training | {"parameters": summary(model).parameters, "flops": summary(model).flops}


def _change(full: nn.Module, half: nn.Module) -> float:
    """Largest change of any pixel of 64 digits, in grey levels of 255, with the weights stored in half precision."""

    def draw(model: nn.Module) -> Tensor:
        noise = draw_noise((64, 1, 28, 28))
        one_step = isinstance(model, MeanFlowUNet)
        return mean_flow_sample(model, noise) if one_step else sample(model, noise, 20, progress=False)

    return float((draw(full) - draw(half)).abs().max() * 127.5)


def _card(name: str, network: Published, model: UNet, training: dict[str, Any]) -> str:
    size, recipe = summary(model), training["recipe"]
    last = training["sessions"][-1]
    versions = ", ".join(f"{k} {v}" for k, v in last["versions"].items())
    commits = ", then ".join(f"`{s['git_commit']}` from step {s['from_step']:,}" for s in training["sessions"])
    final = training.get("final_training_loss", float("nan"))
    loss = "" if recipe["loss"] == "flow_matching_loss" else f"; loss `{recipe['loss']}`"
    loss += f"; {recipe['label_dropout']:.0%} of the labels dropped" if "label_dropout" in recipe else ""
    return f"""# {network.title}

A network for flow matching on MNIST: {network.about}. Load it with
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
seed {recipe["seed"]}{loss} |
| training loss | {final:.4f} (mean of the last thousand steps) |
| validation loss | {training["validation_loss"]:.4f} (EMA weights, fixed noise and times, 2,048 test digits) |
| device | {last["device"]} |
| time | {training["seconds"]:,.0f} s, on a machine that did other work at the same time |
| code | commit {commits}; {versions} |
| weights | `model.safetensors`, EMA weights in half precision; this changes no pixel of 64 sampled digits by \
more than {training["half_precision_change"]:.1f} of 255 grey levels |

**The training images** were recovered from PNG copies of MNIST and differ a little from the official files; the chapter
*Residual vs. Base* says by how much.

**Limits.** Trained on 28×28 digits of one data set, for teaching. Samples are not always
legible, and the loss is an average over all times: it says little about rare failures. Not meant to recognise,
authenticate or forge handwriting.
"""
