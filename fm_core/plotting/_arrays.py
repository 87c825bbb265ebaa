"""Inputs of the plotting functions: arrays, tensors on any device, Trajectories. Imports neither torch nor solvers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fm_core._checks import as_numbers, check_count, check_finite, described

if TYPE_CHECKING:
    from torch import Tensor

    from fm_core.solvers import Trajectory

__all__ = [
    "ArrayLike",
    "as_array",
    "as_image",
    "as_images",
    "as_states",
    "as_velocities",
    "check_axes",
    "part",
    "pick_samples",
]

ArrayLike: TypeAlias = "np.ndarray | Tensor | Sequence[Any]"


def as_array(x: ArrayLike, name: str = "x", *, finite: bool = True) -> np.ndarray:
    """A NumPy array of real numbers on the CPU, detached; half precision becomes float32.

    Raises:
        ValueError: anything else, by name; and NaN or infinity, unless ``finite`` is False.
    """
    array = as_numbers(x)
    if array is None:
        raise ValueError(f"{name}: expected an array of numbers, got {described(x)}.")
    return check_finite(name, array) if finite else array


def check_axes(ax: Any, color: Any = None) -> None:
    """ValueError unless ``ax`` can be drawn on, in this colour, or one colour for each point, if given."""
    from matplotlib.colors import to_rgba_array

    if not hasattr(ax, "imshow"):
        raise ValueError(f"ax: expected matplotlib Axes, got {described(ax)}. Make them with plt.subplots().")
    try:
        to_rgba_array("none" if color is None else color)
    except (TypeError, ValueError) as error:
        raise ValueError(f"color: expected a colour of matplotlib, got {described(color)}.") from error


def as_image(x: ArrayLike, name: str = "image") -> np.ndarray:
    """One grey image as ``(H, W)``; ValueError where ``x`` is no image, or several."""
    image = as_array(x, name)
    if image.ndim < 2 or any(n != 1 for n in image.shape[:-2]):
        raise ValueError(f"{name}: expected one grey image, (H, W) or (1, H, W), got {image.shape}. Use {name}[0].")
    return image.reshape(image.shape[-2:])


def as_images(x: ArrayLike, name: str = "images") -> np.ndarray:
    """Grey images ``(N, 1, H, W)``, ``(N, H, W)`` or ``(H, W)`` as ``(N, H, W)``; ValueError for another shape."""
    images = as_array(x, name)
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    elif images.ndim == 2:
        images = images[None]
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(f"{name}: expected grey images, (N, 1, H, W) or (N, H, W) with N > 0, got {images.shape}.")
    return images


def as_states(trajectory: Trajectory, name: str = "trajectory") -> tuple[np.ndarray, np.ndarray]:
    """Times ``(T,)`` and states ``(T, B, H, W)`` of a Trajectory of grey images; ValueError for another one."""
    t, x = (as_array(part(trajectory, which, name), f"{name}.{which}") for which in ("t", "x"))
    if x.ndim != 5 or x.shape[2] != 1 or t.shape != x.shape[:1] or 0 in x.shape:
        raise ValueError(f"{name}: expected x of (T, B, 1, H, W) and t of (T,), got {x.shape} and {t.shape}.")
    return t, x[:, :, 0]


def part(trajectory: Trajectory, which: str, name: str) -> Any:
    """An attribute of a Trajectory; ValueError where it is another object."""
    if not hasattr(trajectory, which):
        raise ValueError(f"{name}: expected a Trajectory, as solve() gives it, got {described(trajectory)}.")
    return getattr(trajectory, which)


def as_velocities(trajectory: Trajectory, name: str = "trajectory") -> np.ndarray:
    """Velocities ``(T, B, H, W)`` of a Trajectory of grey images; ValueError where it has none, or another shape."""
    velocity, shape = part(trajectory, "velocity", name), tuple(trajectory.x.shape)
    if velocity is None:
        raise ValueError(f"{name}.velocity: expected an array, got None. Use solve(..., keep=True), or arrows=False.")
    velocity = as_array(velocity, f"{name}.velocity")
    if velocity.shape != shape:
        raise ValueError(f"{name}.velocity: expected the shape of x, {shape}, got {velocity.shape}.")
    return velocity[:, :, 0]


def pick_samples(samples: int | Sequence[int], batch: int) -> list[int]:
    """Indices of the chosen samples: the first ``samples`` of the batch, or those named; ValueError outside it."""
    if np.ndim(samples) == 0 or isinstance(samples, str | dict):
        return list(range(min(check_count("samples", samples), batch)))
    indices = as_array(samples, "samples")  # type: ignore[arg-type]
    if (
        indices.ndim != 1
        or not len(indices)
        or indices.dtype.kind not in "iu"
        or not (abs(indices + 0.5) < batch).all()
    ):
        raise ValueError(f"samples: expected a count or indices within a batch of {batch}, got {described(samples)}.")
    return indices.tolist()
