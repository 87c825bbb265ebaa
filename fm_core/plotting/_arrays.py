"""Inputs of the plotting functions: arrays, tensors on any device, Trajectories. Imports neither torch nor solvers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from fm_core.solvers import Trajectory

__all__ = ["ArrayLike", "as_array", "as_image", "as_images", "as_states", "as_velocities", "pick_samples"]

ArrayLike: TypeAlias = "np.ndarray | Tensor | Sequence[Any]"


def as_array(x: ArrayLike) -> np.ndarray:
    """A NumPy array on the CPU, detached; half precision becomes float32."""
    if not isinstance(x, (np.ndarray, Sequence)) and hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.float() if x.is_floating_point() and x.element_size() < 4 else x).numpy()  # NumPy has no bfloat16
    array = np.asarray(x)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def as_image(x: ArrayLike, name: str = "image") -> np.ndarray:
    """One grey image as ``(H, W)``; ValueError where ``x`` is no image, or several."""
    image = as_array(x)
    if image.ndim < 2 or any(n != 1 for n in image.shape[:-2]):
        raise ValueError(f"{name}: expected one grey image, (H, W) or (1, H, W), got {image.shape}. Use {name}[0].")
    return image.reshape(image.shape[-2:])


def as_images(x: ArrayLike, name: str = "images") -> np.ndarray:
    """Grey images ``(N, 1, H, W)``, ``(N, H, W)`` or ``(H, W)`` as ``(N, H, W)``; ValueError for another shape."""
    images = as_array(x)
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    elif images.ndim == 2:
        images = images[None]
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(f"{name}: expected grey images, (N, 1, H, W) or (N, H, W) with N > 0, got {images.shape}.")
    return images


def as_states(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Times ``(T,)`` and states ``(T, B, H, W)`` of a Trajectory of grey images; ValueError for another one."""
    t, x = as_array(trajectory.t), as_array(trajectory.x)
    if x.ndim != 5 or x.shape[2] != 1 or t.shape != x.shape[:1] or 0 in x.shape:
        raise ValueError(f"trajectory: expected x of (T, B, 1, H, W) and t of (T,), got {x.shape} and {t.shape}.")
    return t, x[:, :, 0]


def as_velocities(trajectory: Trajectory) -> np.ndarray:
    """Velocities ``(T, B, H, W)`` of a Trajectory of grey images; ValueError where it has none, or another shape."""
    if trajectory.velocity is None:
        raise ValueError(
            "trajectory.velocity: expected an array, got None. Use solve(..., keep=True), or arrows=False."
        )
    velocity = as_array(trajectory.velocity)
    if velocity.shape != trajectory.x.shape:
        raise ValueError(
            f"trajectory.velocity: expected the shape of x, {tuple(trajectory.x.shape)}, got {velocity.shape}."
        )
    return velocity[:, :, 0]


def pick_samples(samples: int | Sequence[int], batch: int) -> list[int]:
    """Indices of the chosen samples: the first ``samples`` of the batch, or those named; ValueError outside it."""
    chosen = list(range(min(samples, batch))) if isinstance(samples, int) else list(samples)
    if not chosen or not all(-batch <= i < batch for i in chosen):
        raise ValueError(f"samples: expected a count or indices within a batch of {batch}, got {samples!r}.")
    return chosen
