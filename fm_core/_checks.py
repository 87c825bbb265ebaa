"""Checks of arguments; every message reads *name: expected X, got Y. Cure.*

A check returns what was meant. Checks of values wait for a GPU, so none of them runs inside a solver's or a training
run's loop.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "as_numbers", "as_tensor", "check_choice", "check_count", "check_finite", "check_generator", "check_images",
    "check_label_range", "check_labels", "check_number", "check_path", "check_seed", "check_text", "check_type",
    "check_velocity", "described", "missing_extra",
]  # fmt: skip

INF = math.inf
Array = TypeVar("Array", Tensor, np.ndarray)


def as_tensor(
    name: str,
    value: Any,
    shape: Sequence[int | str | EllipsisType] = (...,),
    *,
    least: int = 1,
    like: Tensor | None = None,
    finite: bool = False,
    cure: str = "",
) -> Tensor:
    """``value`` as a dense floating-point tensor of a shape.

    A floating-point tensor is returned as it is. Numbers, lists of them and floating-point NumPy arrays become float32
    on the CPU. Integer tensors and arrays are refused: they are most often raw pixels or labels.

    Args:
        name: of the argument, for the error.
        value: what the caller gave.
        shape: a whole number is a length, a letter any length; ``...`` at the end stands for any further axes.
        least: smallest length of the first axis.
        like: convert to the precision of this tensor; a tensor on another device is refused.
        finite: refuse NaN and infinity.
        cure: last sentence of the error.

    Raises:
        ValueError: anything else.
    """
    x = value if isinstance(value, Tensor) else None
    if x is None and (array := as_numbers(value)) is not None:
        floating = array.dtype.kind == "f" or not isinstance(value, np.ndarray)
        x = torch.from_numpy(array.astype(np.float32 if floating else np.int64))
    whole = x is not None and not x.is_floating_point() and not x.is_complex()
    if x is None or not x.is_floating_point() or x.is_meta or x.layout != torch.strided or not _fits(x, shape, least):
        words = f" of shape ({', '.join('...' if n is ... else str(n) for n in shape)})" if len(shape) > 1 else ""
        words += f" with {shape[0]} at least {least}" if len(shape) > 1 and least > 1 else ""
        cure = f"Cast it, for example {name}.float()." if whole else cure
        raise ValueError(f"{name}: expected a floating-point tensor{words}, got {described(value)}. {cure}".rstrip())
    if like is not None:
        if x is value and x.ndim and x.device != like.device:
            raise ValueError(f"{name}: expected a tensor on {like.device}, got one on {x.device}. Move it with .to().")
        x = x.to(like.device, like.dtype)
    return check_finite(name, x) if finite else x


def as_numbers(value: Any) -> np.ndarray | None:
    """Numbers, lists of them, arrays and tensors as an array on the CPU, half precision as float32; else None."""
    try:
        if isinstance(value, Tensor):
            value = value.detach().cpu()  # NumPy has no bfloat16
            value = (value.float() if value.is_floating_point() and value.element_size() < 4 else value).numpy()
        elif isinstance(value, list | tuple):
            value = [v.tolist() if isinstance(v, Tensor) else v for v in value]
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, NotImplementedError):  # a ragged list, a sparse tensor, one on meta
        return None
    if array.dtype.kind not in "fiub":
        return None
    return array.astype(np.float32) if array.dtype == np.float16 else array


def check_finite(name: str, x: Array) -> Array:
    """``x`` itself; ValueError with the first row that holds NaN or infinity."""
    if 0 not in x.shape and not math.isfinite(x.min().item() + x.max().item()):  # NaN passes through min and max
        finite = x.isfinite() if isinstance(x, Tensor) else torch.from_numpy(np.atleast_1d(np.isfinite(x)))
        rows = (~finite).reshape(len(finite) if finite.ndim else 1, -1).any(dim=1)
        if bool(rows.any()):
            raise ValueError(
                f"{name}: expected finite values, got NaN or infinity in {int(rows.sum())} of {len(rows)}, the first "
                f"is {int(rows.nonzero()[0])}. Look for a diverging solver or loss, or a division by 1 - t at t = 1."
            )
    return x


def check_images(name: str, x: Tensor, *, most: float = INF) -> Tensor:
    """``x`` itself; ValueError for NaN, infinity, and pixels that are not scaled to [-1, 1].

    Grey and colour images ``(N, 1 or 3, H, W)`` that are nowhere negative, and not of one shade each, lie in [0, 1] or
    [0, 255]. Other data are checked for finite values only: points, and latent images of more channels.

    Args:
        name: of the argument, for the error.
        x: floating-point data, ``(N, ...)``.
        most: largest absolute value of a pixel. Noise and samples lie beyond [-1, 1], but not far.
    """
    check_finite(name, x)
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.numel():
        low, high = (float(end) for end in x.detach().aminmax())
        varied = low >= 0 and bool((x.amax(dim=(1, 2, 3)) > x.amin(dim=(1, 2, 3))).any())
        if varied or max(-low, high) > most:
            cure = "x.clamp(-1, 1)" if low < 0 else "2 * x - 1" if high <= 1 else "x / 127.5 - 1"
            raise ValueError(f"{name}: expected pixels in [-1, 1], got [{low:g}, {high:g}]. Use {cure}.")
    return x


def check_type(name: str, value: Any, kind: Any, words: str) -> Any:
    """``value`` itself; ValueError unless it is an instance of ``kind``, which the error calls ``words``."""
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected {words}, got {described(value)}.")
    return value


def check_velocity(velocity: Any) -> Any:
    """``velocity`` itself; ValueError unless it can be called."""
    return check_type("velocity", velocity, Callable, "a function velocity(x, t)")


def check_generator(generator: Any) -> None:
    """ValueError unless it is a torch.Generator or None."""
    check_type("generator", generator, torch.Generator | None, "a torch.Generator or None")


def check_text(name: str, value: Any, words: str = "a text") -> str:
    """``value`` itself; ValueError unless it is a text that is not blank and holds no NUL."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"{name}: expected {words}, got {described(value)}.")
    return value


def check_path(name: str, value: Any) -> Path:
    """``value`` as a Path; ValueError unless it is a path, not empty, without NUL."""
    if not isinstance(value, str | os.PathLike) or not str(value) or "\0" in str(value):
        raise ValueError(f"{name}: expected a path, got {described(value)}.")
    return Path(value)


def check_choice(name: str, value: object, options: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``options``."""
    options = list(options)
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {described(value)}.")


def check_count(name: str, value: Any, least: int = 1, most: float = INF) -> int:
    """``value`` as an int; ValueError unless it is a whole number, least <= value <= most."""
    number = _number(value)
    if not (number.is_integer() and least <= number <= most):
        span = f"of at least {least}" if most == INF else f"from {least:,} to {most:,}"
        raise ValueError(f"{name}: expected a whole number {span}, got {described(value)}.")
    return int(value)


def check_labels(name: str, value: Any, count: int) -> Tensor:
    """``value`` as int64 labels, ``(count,)`` or ``(1,)``; ValueError unless it is one whole number or one per item."""
    array = as_numbers(value)
    y = value if isinstance(value, Tensor) else None if array is None else torch.from_numpy(np.asarray(array))
    if y is None or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or y.is_meta:
        raise ValueError(f"{name}: expected whole numbers, one label or one per item, got {described(value)}.")
    if y.ndim > 1 or (y.ndim == 1 and len(y) not in (1, count)):
        raise ValueError(f"{name}: expected one label or one per item, shape ({count},), got shape {tuple(y.shape)}.")
    return y.long().reshape(-1)


def check_label_range(name: str, y: Tensor, classes: int) -> None:
    """ValueError unless all labels lie in 0 ... ``classes``, the last being the null label; waits for a GPU."""
    if y.numel() and (int(y.min()) < 0 or int(y.max()) > classes):
        raise ValueError(
            f"{name}: expected labels from 0 to {classes - 1}, or {classes} for no label, got "
            f"[{int(y.min())}, {int(y.max())}]."
        )


def check_seed(name: str, value: Any) -> int:
    """``value`` as an int; ValueError unless a random generator takes it for a seed."""
    return check_count(name, value, least=-(2**62), most=2**62)


def check_number(
    name: str, value: Any, *, above: float = -INF, least: float = -INF, below: float = INF, most: float = INF
) -> float:
    """``value`` as a float; ValueError unless finite, above < value < below and least <= value <= most."""
    number = _number(value)
    if not (math.isfinite(number) and above < number < below and least <= number <= most):
        bounds = [f"above {above:g}"] * (above > -INF) + [f"at least {least:g}"] * (least > -INF)
        bounds += [f"below {below:g}"] * (below < INF) + [f"at most {most:g}"] * (most < INF)
        raise ValueError(
            f"{name}: expected a number {' and '.join(bounds) or 'that is finite'}, got {described(value)}."
        )
    return number


def described(value: Any) -> str:
    """What an error says of a value: numbers and texts as they are, arrays by precision and shape, the rest by type."""
    if isinstance(value, Tensor | np.ndarray):
        odd = isinstance(value, Tensor) and (value.is_meta or value.layout != torch.strided)
        if value.ndim == 0 and not odd:
            return repr(value.item())
        words = f"shape {tuple(value.shape)}"
        words = words if "float" in str(value.dtype) else f"{value.dtype} of {words}"
        return f"{words}, {value.layout} on the device {value.device}" if odd else words  # pyright: ignore
    if value is None or isinstance(value, str | Real | complex | list | tuple | dict):
        text = reprlib.repr(value)
        return text if len(text) <= 80 else text[:77] + "..."
    return f"a {type(value).__name__}"


def missing_extra(feature: str, extra: str) -> ImportError:
    """The error for a feature whose optional packages are not installed."""
    return ImportError(f"{feature} needs packages that are not installed: pip install 'fm-core[{extra}]'.")


def _number(value: Any) -> float:
    """A number, or an array or tensor of one number, as a float; NaN for anything else."""
    one = isinstance(value, Real) or (getattr(value, "ndim", None) == 0 and hasattr(value, "__float__"))
    try:
        return float(value) if one and not isinstance(value, bool | np.bool_ | complex) else math.nan
    except (TypeError, ValueError, OverflowError, RuntimeError, NotImplementedError):  # complex, too large, on meta
        return math.nan


def _fits(x: Tensor, shape: Sequence[int | str | EllipsisType], least: int) -> bool:
    lengths = [n for n in shape if n is not ...]
    if x.ndim < len(lengths) or (x.ndim > len(lengths) and ... not in shape):
        return False
    if any(isinstance(n, int) and n != m for n, m in zip(lengths, x.shape, strict=False)):
        return False
    return not lengths or (x.shape[0] >= least and 0 not in x.shape[1:])
