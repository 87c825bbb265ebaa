"""Device and provenance: what computed a result, recorded beside every run and every published number."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["device_name", "git_commit", "provenance", "resolve_device"]

PACKAGES = ("fm-core", "torch", "torchvision", "numpy")
_COMPUTES = {"cpu"}  # devices that were tried


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on.

    Args:
        device: ``"auto"`` (a CUDA GPU, else Apple's, else the CPU) or anything that ``torch.device`` takes.

    Raises:
        ValueError: a device that this torch does not know, that this machine does not have, or that cannot compute,
            such as a GPU too old for this torch.
    """
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if str(device) not in _COMPUTES:
        try:
            device = torch.device(device)
            torch.ones(2, device=device).sum().item()
        except Exception as error:  # each backend has its own kind
            said = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
            raise ValueError(
                f"device: expected 'auto', 'cpu', or a device on which this torch ({torch.__version__}) can compute, "
                f"got {str(device)!r} ({said}). Use --device cpu or device='cpu'."
            ) from error
        _COMPUTES.add(str(device))
    return torch.device(device)


def device_name(device: torch.device) -> str:
    """Name of a device, such as ``"cpu (Intel(R) Xeon(R) Processor, 2 threads)"``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return f"cpu ({model}, {torch.get_num_threads()} threads)"


def git_commit() -> str | None:
    """Commit of the checkout this package runs from, ``-dirty`` if files differ; None without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def provenance(device: torch.device) -> dict[str, Any]:
    """Commit, versions and device, JSON-ready."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was not installed
            versions[package] = "not installed"
    return {"git_commit": git_commit(), "device": device_name(device), "versions": versions}
