"""How much a chapter computes: one environment variable chooses between three sizes.

A chapter runs in three situations: in the tests, where seconds count; in the book's build, on two CPU cores; and on a
GPU, where it can afford the real thing. Each count in a chapter is written once, with its value for each of them, so
that a reader sees what changes between them and the tests run the very code that the book shows.
"""

from __future__ import annotations

import os
from typing import TypeVar

__all__ = ["SCALES", "current_scale", "scaled"]

SCALES = ("smoke", "default", "full")

T = TypeVar("T")


def current_scale() -> str:
    """Name of the size in force: the environment variable ``FM_SCALE``, or ``"default"`` where it is unset or empty.

    Returns:
        One of :data:`SCALES`: ``"smoke"`` (tests), ``"default"`` (the book on two CPU cores) or ``"full"`` (a GPU).

    Raises:
        ValueError: ``FM_SCALE`` holds anything else.
    """
    value = os.environ.get("FM_SCALE", "").strip() or "default"
    if value not in SCALES:
        accepted = ", ".join(repr(name) for name in SCALES)
        raise ValueError(
            f"FM_SCALE is {value!r}, accepted are {accepted}. Unset it for the size that the book is built with."
        )
    return value


def scaled(*, smoke: T, default: T, full: T) -> T:
    """Return the one of three values that belongs to the size in force.

    Args:
        smoke: value under ``FM_SCALE=smoke``, just enough to run every line.
        default: value where ``FM_SCALE`` is unset, for two CPU cores.
        full: value under ``FM_SCALE=full``, for a GPU.

    Raises:
        ValueError: ``FM_SCALE`` names no size.

    Example:
        >>> steps = scaled(smoke=2, default=200, full=20_000)
    """
    return {"smoke": smoke, "default": default, "full": full}[current_scale()]
