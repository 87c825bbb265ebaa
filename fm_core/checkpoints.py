"""Weights and checkpoints on disk: safetensors and JSON, written atomically, checked when read.

Opening a safetensors file never runs code, unlike a pickle. A checkpoint is one file, tensors under the prefixes
``model.``, ``ema.``, ``optimizer.`` and ``random.`` and one JSON text in its metadata, so that one rename replaces it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fm_core._checks import check_choice
from fm_core._files import read_json, to_json, write_atomically
from fm_core.models import MODELS, UNet, build_model

__all__ = [
    "CheckpointError",
    "check_free",
    "check_recipe",
    "describe",
    "load_checkpoint",
    "load_model",
    "load_pretrained",
    "load_weights",
    "model_card",
    "pretrained_card",
    "pretrained_folder",
    "pretrained_history",
    "pretrained_names",
    "save_checkpoint",
    "save_model",
    "write_atomically",
]

FORMAT = "fm_core.checkpoint.2"
PRETRAINED = Path(__file__).parent / "pretrained"
ModelT = TypeVar("ModelT", bound=nn.Module)


class CheckpointError(ValueError):
    """A file that is damaged, foreign, or belongs to another run. The file is left as it was."""


def save_checkpoint(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a training checkpoint, atomically.

    Args:
        path: file, usually ``checkpoint.safetensors`` in a run's folder.
        tensors: named tensors of any dtype and device.
        state: everything else, JSON-ready.

    Raises:
        CheckpointError: a floating-point tensor that holds NaN or infinity; nothing is written then.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    broken = [name for name, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if broken:
        raise CheckpointError(
            f"{path}: expected finite tensors, got NaN or infinity in {len(broken)}, the first is {broken[0]!r}. "
            "Nothing was written and the last checkpoint is untouched. Resume from it with a smaller learning rate."
        )
    text = to_json(state)
    metadata = {"format": FORMAT, "sha256": _digest(tensors, text), "state": text}
    write_atomically(path, save(tensors, metadata))


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a training checkpoint and check that it is whole.

    Args:
        path: file written by :func:`save_checkpoint`.

    Returns:
        The tensors, on the CPU, and the state.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint of this package, or damaged.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: expected format {FORMAT!r}, got {metadata.get('format')!r}. It is left untouched. Give train() "
            "another folder with out=...."
        )
    if _digest(tensors, metadata.get("state", "")) != metadata.get("sha256"):
        raise CheckpointError(
            f"{path}: expected content that matches its SHA-256, got a damaged file. It is left untouched. Delete it "
            "or give train() another folder with out=...."
        )
    return tensors, json.loads(metadata["state"])


def describe(model: nn.Module) -> dict[str, Any]:
    """Name and arguments of a model, JSON-ready: what a checkpoint compares and what builds a package's network again.

    Returns:
        ``{"model": name, "arguments": model.config}``; for a model without ``config``, the shapes of its parameters.
    """
    name = next((key for key, kind in MODELS.items() if type(model) is kind), type(model).__name__)
    shapes = {key: list(t.shape) for key, t in model.state_dict().items()}
    return {"model": name, "arguments": getattr(model, "config", shapes)}


def save_model(folder: str | os.PathLike[str], model: nn.Module, *, half: bool = False, **facts: Any) -> Path:
    """Write a network as ``model.safetensors`` and ``config.json``.

    Args:
        folder: made if missing.
        model: any module.
        half: store float16.
        facts: JSON-ready facts about the training run, kept in ``config.json`` under ``training``.

    Returns:
        The folder.
    """
    folder, dtype = Path(folder), torch.float16 if half else torch.float32
    weights = {
        key: t.detach().to("cpu", dtype if t.is_floating_point() else t.dtype).contiguous()
        for key, t in model.state_dict().items()
    }
    broken = [key for key, t in weights.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if broken:
        raise ValueError(
            f"model: expected finite weights, got {broken[0]!r} with NaN or beyond {dtype}. Nothing is written."
        )
    content, described = save(weights, {"format": "pt"}), describe(model)
    config = {
        "name": described["model"],
        "model": described["arguments"],
        "sha256": hashlib.sha256(content).hexdigest(),
        "training": facts,
    }
    write_atomically(folder / "model.safetensors", content)
    write_atomically(folder / "config.json", (to_json(config, indent=2) + "\n").encode())
    return folder


def load_model(
    folder: str | os.PathLike[str], device: str | torch.device = "cpu", *, model: ModelT | None = None
) -> UNet | ModelT:
    """Read a network written by :func:`save_model`, in evaluation mode and float32.

    Args:
        folder: holds ``model.safetensors`` and ``config.json``.
        device: where the network goes.
        model: takes the weights; needed for a network of your own. Left out, ``config.json`` says which network of this
            package is built.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights do not match the hash in ``config.json``, or do not fit the network.
    """
    folder = Path(folder)
    config, tensors = model_card(folder), load_weights(folder, "model.safetensors")
    name: Any = config.get("name")
    arguments: Any = config.get("model")
    if model is None and (not isinstance(name, str) or name not in MODELS):
        raise CheckpointError(
            f"{folder}: expected one of {', '.join(MODELS)}, got {name!r}. Pass the network that takes the "
            "weights, load_model(folder, model=...)."
        )
    network: Any = model
    try:
        if model is None:
            with torch.device("meta"):  # without memory: damaged arguments may ask for more than there is
                build_model(name, **arguments).load_state_dict(tensors, assign=True)
            network = build_model(name, **arguments)
        network.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in tensors.items()})
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        kind = MODELS[name].__name__ if model is None else type(model).__name__
        raise CheckpointError(f"{folder}: expected weights of a {kind}, got others: {error}") from error
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  (torch's stub lacks this form)
    return network.eval()


def check_recipe(file: Path, theirs: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """CheckpointError unless a file's recipe is this one; both JSON-ready."""
    different = sorted(k for k in recipe.keys() | theirs.keys() if recipe.get(k) != theirs.get(k))
    if different:
        changes = "; ".join(f"{k}: {theirs.get(k)!r} there, {recipe.get(k)!r} here" for k in different)
        raise CheckpointError(
            f"{file}: expected the same recipe, got another one ({changes}). It is left untouched. Use the same recipe "
            "to resume, or another folder with out=...."
        )


def check_free(folder: Path, recipe: Mapping[str, Any]) -> None:
    """CheckpointError if a run would replace a network of another recipe, or files that are not this package's.

    Args:
        folder: of the run.
        recipe: of the run, JSON-ready. Where there is a checkpoint, resuming compares the checkpoint's.
    """
    card, resumed = read_json(folder / "config.json"), (folder / "checkpoint.safetensors").exists()
    ours = isinstance(card, dict) and "sha256" in card and isinstance(card.get("training"), dict)
    names = ["config.json"] if resumed else ["config.json", "model.safetensors"]
    foreign = [folder / name for name in names if not ours and (folder / name).exists()]
    if foreign:
        raise CheckpointError(
            f"{foreign[0]}: expected no such file or one written by train(), got another. It is left untouched. Move "
            "it, or choose another folder with out=...."
        )
    if ours and not resumed:
        check_recipe(folder / "config.json", card["training"].get("recipe", {}), recipe)


def model_card(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """``config.json`` of a folder that :func:`save_model` wrote: name, arguments, hash and facts about training.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: a damaged file.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: expected a folder written by save_model, got no such file.")
    try:
        card = json.loads(file.read_text(encoding="utf-8-sig"))
        if not isinstance(card["sha256"], str | dict):
            raise TypeError("sha256 is no text")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file}: expected JSON with the entry sha256, got a damaged file ({error!r}). Copy it again from where "
            "the network was saved, or reinstall fm-core if the file belongs to the package."
        ) from error
    return card


def load_weights(folder: str | os.PathLike[str], name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, once its SHA-256 is the one in ``config.json``.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: a damaged file or another hash.
    """
    file, expected = Path(folder) / name, model_card(folder)["sha256"]
    expected = expected[name] if isinstance(expected, dict) else expected
    if not file.is_file():
        raise FileNotFoundError(f"{file}: expected a file written by save_model, got no such file.")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != expected:
        raise CheckpointError(
            f"{file}: expected SHA-256 {expected[:12]}..., got {digest[:12]}...: the file is damaged or another one. "
            "Copy the folder again, or reinstall fm-core if the file belongs to the package."
        )
    return _read(file)[0]


def load_pretrained(name: str, device: str | torch.device = "cpu") -> UNet:
    """A published network, in evaluation mode.

    Args:
        name: one of :func:`pretrained_names`, such as ``"residual"``.
        device: where the network goes.

    Raises:
        ValueError: unknown name.

    Data, recipe and limits are in the model cards, ``fm_core/pretrained/*/README.md``.
    """
    return load_model(pretrained_folder(name), device)


def pretrained_card(name: str) -> dict[str, Any]:
    """:func:`model_card` of a published network, one of :func:`pretrained_names`."""
    return model_card(pretrained_folder(name))


def pretrained_history(name: str) -> dict[str, dict[str, list[float]]]:
    """The curves tracked while a published network was trained, ``{curve: {"step": [...], "value": [...]}}``."""
    return json.loads((pretrained_folder(name) / "history.json").read_text(encoding="utf-8"))


def pretrained_folder(name: str) -> Path:
    """Folder of a published network; ValueError for an unknown name."""
    check_choice("name", name, pretrained_names())
    return PRETRAINED / name


def pretrained_names() -> list[str]:
    """Names of the published networks."""
    return sorted(card.parent.name for card in PRETRAINED.glob("*/config.json"))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata; nothing keeps the file mapped, so that it can be replaced on Windows."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a safetensors file, got no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: expected a readable safetensors file, got {error}. It is left untouched. Delete it or give "
            "another path."
        ) from error


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"{name}:{t.dtype}:{tuple(t.shape)};".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
