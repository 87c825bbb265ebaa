"""Weights and training states on disk: safetensors and JSON only, written atomically, checked when read.

Opening a safetensors file never runs code, unlike a pickle. A training checkpoint is one file: tensors under prefixes
(``model.``, ``ema.``, ``optimizer.``, ``random.``) and one JSON text with everything else. One file, because then a
rename replaces the old checkpoint in one step, and an interruption leaves either the old one or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fm_core.models import MODELS, UNet, build_model

__all__ = [
    "CheckpointError",
    "load_checkpoint",
    "load_model",
    "load_pretrained",
    "pretrained_card",
    "pretrained_history",
    "save_checkpoint",
    "save_model",
    "write_atomically",
]

FORMAT = "fm_core.checkpoint.1"


class CheckpointError(ValueError):
    """A file that is damaged, foreign, or belongs to another run. The file is left as it was."""


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: file; its folder is made if missing.
        content: what it shall hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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
            f"{path} was not written: {len(broken)} tensors hold NaN or infinity, the first is {broken[0]!r}. "
            "The last good checkpoint is untouched; resume from it with a smaller learning rate."
        )
    text = json.dumps(state)
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
            f"{path} is a safetensors file but no checkpoint of fm_core (format {metadata.get('format')!r}, expected "
            f"{FORMAT!r}). It is left untouched; give training another folder with out=...."
        )
    if _digest(tensors, metadata.get("state", "")) != metadata.get("sha256"):
        raise CheckpointError(
            f"{path} is damaged: its content does not match its SHA-256. It is left untouched; delete it or give "
            "training another folder with out=...."
        )
    return tensors, json.loads(metadata["state"])


def save_model(folder: str | os.PathLike[str], model: UNet, *, half: bool = False, **facts: Any) -> Path:
    """Write a network as ``model.safetensors`` and ``config.json``.

    Args:
        folder: where; made if missing.
        model: a network of this package, or a UNet with a ``config`` that builds it again.
        half: store float16, half the size.
        facts: JSON-ready facts about the training, kept in ``config.json`` under ``training``.

    Returns:
        The folder.
    """
    folder = Path(folder)
    name = next((key for key, kind in MODELS.items() if type(model) is kind), type(model).__name__)
    if not (isinstance(model, UNet) and hasattr(model, "config")):
        raise ValueError(f"model is a {type(model).__name__}; save_model takes {' or '.join(MODELS)} networks.")
    dtype = torch.float16 if half else torch.float32
    weights = {key: t.detach().to("cpu", dtype).contiguous() for key, t in model.state_dict().items()}
    content = save(weights, {"format": "pt"})
    config = {"name": name, "model": model.config, "sha256": hashlib.sha256(content).hexdigest(), "training": facts}
    write_atomically(folder / "model.safetensors", content)
    write_atomically(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    return folder


def load_model(
    folder: str | os.PathLike[str], device: str | torch.device = "cpu", *, build: Callable[..., UNet] = build_model
) -> UNet:
    """Read a network written by :func:`save_model`, in evaluation mode and float32.

    Args:
        folder: holds ``model.safetensors`` and ``config.json``.
        device: where the network lives.
        build: makes the network from the name and the ``config`` that were saved; for networks of one's own.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights do not match the hash in ``config.json``, or do not fit the network.
    """
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    file = folder / "model.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != config["sha256"]:
        raise CheckpointError(
            f"{file} has SHA-256 {digest[:12]}..., but config.json names {config['sha256'][:12]}...: the file is "
            "damaged or not the one that belongs here. Fetch the folder again."
        )
    tensors, _ = _read(file)
    model = build(config["name"], **config["model"])
    try:
        model.load_state_dict({key: t.float() for key, t in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{file} does not fit the network that config.json names: {error}") from error
    return model.to(device, memory_format=torch.channels_last).eval()


def load_pretrained(name: str, device: str | torch.device = "cpu") -> UNet:
    """One of the two published networks, in evaluation mode.

    Args:
        name: ``"base"`` or ``"residual"``.
        device: where the network lives.

    Raises:
        ValueError: unknown name.

    What they were trained on and how is in their model cards, ``fm_core/pretrained/*/README.md``; results stand in the
    chapter *Residual vs. Base*.
    """
    with as_file(_pretrained(name)) as folder:
        return load_model(folder, device)


def pretrained_card(name: str) -> dict[str, Any]:
    """Facts recorded when a published network was trained: recipe, images seen, seconds, losses, versions.

    Args:
        name: ``"base"`` or ``"residual"``.

    Raises:
        ValueError: unknown name.
    """
    return json.loads(_pretrained(name).joinpath("config.json").read_text())


def pretrained_history(name: str) -> dict[str, dict[str, list[float]]]:
    """The curves that MLflow recorded while a published network was trained.

    Args:
        name: ``"base"`` or ``"residual"``.

    Returns:
        ``{curve: {"step": [...], "value": [...]}}`` for the loss, the validation loss, the gradient norm, the learning
        rate and the images per second.

    Raises:
        ValueError: unknown name.
    """
    return json.loads(_pretrained(name).joinpath("history.json").read_text())


def _pretrained(name: str) -> Any:
    if name not in MODELS:
        raise ValueError(f"name={name!r}: the published networks are {', '.join(map(repr, MODELS))}.")
    return files("fm_core").joinpath("pretrained").joinpath(name)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; nothing was loaded.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}). It is left untouched; delete it or give another "
            "path."
        ) from error


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"{name}:{t.dtype}:{tuple(t.shape)};".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
