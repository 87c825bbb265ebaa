"""What the plotting rooms accept: NumPy arrays, torch tensors on any device, and anything shaped like a Trajectory.

Plotting imports neither torch nor the solvers, so it asks an object what it can do instead of what it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["as_array", "as_image", "as_images", "as_snapshots"]


def as_array(x: Any) -> np.ndarray:
    """A NumPy array of ``x``; tensors are detached and brought to the CPU, half precision becomes float32.

    Args:
        x: array, nested list, or torch tensor on any device.
    """
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.float() if x.is_floating_point() and x.element_size() < 4 else x).numpy()  # NumPy has no bfloat16
    array = np.asarray(x)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def as_image(x: Any, name: str = "image") -> np.ndarray:
    """One grey image as ``(H, W)``; leading axes of length one are dropped.

    Raises:
        ValueError: more than one image, or no image at all.
    """
    image = as_array(x)
    if image.ndim < 2 or any(n != 1 for n in image.shape[:-2]):
        raise ValueError(
            f"{name} has shape {image.shape}; one grey image is wanted, (H, W) or (1, H, W). Index the batch first, "
            f"{name}[0]."
        )
    return image.reshape(image.shape[-2:])


def as_images(x: Any, name: str = "images") -> np.ndarray:
    """A batch of grey images as ``(N, H, W)``.

    Args:
        x: ``(N, 1, H, W)``, ``(N, H, W)`` or one ``(H, W)``.

    Raises:
        ValueError: another shape, or colour channels.
    """
    images = as_array(x)
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    elif images.ndim == 2:
        images = images[None]
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(
            f"{name} has shape {images.shape}; grey images are wanted, (N, 1, H, W) or (N, H, W) with at least one of "
            "them. Add the channel axis with x[:, None]."
        )
    return images


def as_snapshots(trajectory: Any, *, with_velocity: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Times ``(T,)``, states ``(T, B, H, W)`` and velocities of the same shape out of a Trajectory of images.

    Args:
        trajectory: an object with ``.t`` of shape ``(T,)``, ``.x`` and ``.velocity`` of shape ``(T, B, 1, H, W)``.
        with_velocity: whether the caller needs the velocity.

    Raises:
        ValueError: shapes that do not fit each other, or a missing velocity.
    """
    t, x = as_array(trajectory.t), as_array(trajectory.x)
    if x.ndim != 5 or x.shape[2] != 1 or t.shape != x.shape[:1] or 0 in x.shape:
        raise ValueError(
            f"trajectory.x has shape {x.shape} and trajectory.t {t.shape}; grey images over time are wanted, x of "
            "shape (T, B, 1, H, W) and t of shape (T,)."
        )
    if not with_velocity:
        return t, x[:, :, 0], None
    if trajectory.velocity is None:
        raise ValueError(
            "trajectory.velocity is None, and the arrows need it; record it with solve(..., keep=True), or leave the "
            "arrows out with arrows=False."
        )
    velocity = as_array(trajectory.velocity)
    if velocity.shape != x.shape:
        raise ValueError(
            f"trajectory.velocity has shape {velocity.shape}; it must have that of trajectory.x, {x.shape}."
        )
    return t, x[:, :, 0], velocity[:, :, 0]
