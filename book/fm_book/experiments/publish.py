"""Train the two published networks with one recipe and put them into the package.

The recipe is :class:`fm_core.TrainConfig` as it stands; only the model's name differs. Each network's averaged weights
go to ``fm_core/pretrained/NAME`` in half precision with their configuration, recorded curves and model card.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import fm_core
from fm_core.checkpoints import load_model, save_model, write_atomically
from fm_core.config import TrainConfig
from fm_book.records import write_record
from fm_core.models import summary
from fm_core.solvers import solve, uniform_grid
from fm_core.tracking import load_history
from fm_core.training import TrainResult, train

__all__ = ["TrainPublished", "publish"]

CURVES = ("loss", "validation_loss", "grad_norm", "lr", "images_per_second")


@dataclass(frozen=True)
class TrainPublished:
    """Train both networks on MNIST, or go on with it, and publish them.

    Attributes:
        models: networks to train.
        images: training images each network sees.
        out: folder of the runs; a run that was interrupted goes on from there.
        device: "auto", "cpu", "cuda", ...
        tracking_uri: MLflow's store.
    """

    models: tuple[str, ...] = ("base", "residual")
    images: int = TrainConfig.images
    out: Path = Path("runs/published")
    device: str = "auto"
    tracking_uri: str | None = None

    def configs(self) -> dict[str, TrainConfig]:
        """The trainings by network."""
        return {
            name: TrainConfig(
                model=name,  # type: ignore[arg-type]
                images=self.images,
                data="mnist",
                out=str(self.out / name),
                device=self.device,
                experiment="published",
                tracking_uri=self.tracking_uri,
            )
            for name in self.models
        }

    def config(self) -> dict[str, Any]:
        """What decides the recorded numbers, JSON-ready."""
        return {name: config.recipe() for name, config in self.configs().items()}

    def run(self) -> str:
        cards = {name: publish(name, train(config), self.tracking_uri) for name, config in self.configs().items()}
        path = write_record("train-published", {"networks": cards}, config=self.config(), device=self.device)
        return f"published {', '.join(cards)}: {path}"


def publish(name: str, result: TrainResult, tracking_uri: str | None = None) -> dict[str, Any]:
    """Put a trained network into the package and give back what was recorded about it.

    Args:
        name: ``"base"`` or ``"residual"``.
        result: of its training.
        tracking_uri: MLflow's store that holds the run.
    """
    folder = Path(fm_core.__file__).parent / "pretrained" / name
    training = json.loads((result.folder / "config.json").read_text())["training"]
    history = load_history(result.run_id, uri=tracking_uri) if result.run_id else {}
    curves = {k: {"step": s.tolist(), "value": [float(f"{x:.6g}") for x in v]} for k, (s, v) in history.items()}
    curves = {k: curves[k] for k in CURVES if k in curves}
    if "loss" in curves:
        tail = curves["loss"]["value"][-20:]
        training["final_training_loss"] = sum(tail) / len(tail)
    save_model(folder, result.model, half=True)
    training["half_precision_change"] = _change(result.model, load_model(folder))
    save_model(folder, result.model, half=True, **training)
    write_atomically(folder / "history.json", (json.dumps(curves) + "\n").encode())
    write_atomically(folder / "README.md", _card(name, result, training).encode())
    return training | {"parameters": summary(result.model).parameters, "flops": summary(result.model).flops}


@torch.no_grad()
def _change(full: torch.nn.Module, half: torch.nn.Module) -> float:
    """Largest change of any pixel of 64 digits, in grey levels of 255, with the weights stored in half precision."""
    device = next(full.parameters()).device
    noise = torch.randn(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    a, b = (
        solve(model.to(device), noise.to(device), uniform_grid(20), keep=False, progress=False).x[-1]
        for model in (full, half)
    )
    return float((a - b).abs().max() * 127.5)


def _card(name: str, result: TrainResult, training: dict[str, Any]) -> str:
    size, recipe = summary(result.model), training["recipe"]
    last = training["sessions"][-1]
    versions = ", ".join(f"{k} {v}" for k, v in last["versions"].items())
    commits = ", then ".join(f"`{s['git_commit']}` from step {s['from_step']:,}" for s in training["sessions"])
    final = training.get("final_training_loss", float("nan"))
    return f"""# {name.capitalize()} U-Net

A velocity network for flow matching on MNIST, one of the two that this book compares. Load it with
`fm_core.load_pretrained("{name}")`. This card is written by `python -m fm_book.experiments train-published`.

| | |
| --- | --- |
| network | `{size.name}`, widths {tuple(recipe["widths"])}, time embedding {recipe["time_dim"]} |
| parameters | {size.parameters:,} |
| FLOPs per 28×28 image | {size.flops:,} (a multiply-add counts as two) |
| data | {training["data"]["source"]}; SHA-256 `{training["data"]["sha256"]}` |
| images seen | {training["images"]:,} in {training["steps"]:,} steps of {recipe["batch_size"]} |
| recipe | AdamW, lr {recipe["lr"]:g} with warm-up over {recipe["warmup"]:.0%} and cosine to 0, weight decay \
{recipe["weight_decay"]:g}, gradient norm at most {recipe["grad_clip"]:g}, average with decay {recipe["ema_decay"]:g}, \
seed {recipe["seed"]} |
| training loss | {final:.4f} (mean of the last thousand steps) |
| validation loss | {training["validation_loss"]:.4f} (averaged weights, fixed noise and times, \
{recipe["eval_images"]:,} test digits) |
| device | {last["device"]} |
| time | {training["seconds"]:,.0f} s, on a machine that did other work at the same time |
| code | commit {commits}; {versions} |
| weights | `model.safetensors`, averaged weights in half precision; this changes no pixel of 64 sampled digits by \
more than {training["half_precision_change"]:.1f} of 255 grey levels |

**The training images** were recovered from PNG copies of MNIST and differ a little from the official files; the chapter
*Residual vs. Base* says by how much.

**Limits.** Trained on 28×28 digits of one data set, for teaching; not conditioned on the class. Samples are not always
legible, and the loss is an average over all times: it says little about rare failures. Not meant to recognise,
authenticate or forge handwriting.
"""
