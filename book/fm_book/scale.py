"""Sizes of the chapters' computations, chosen by the environment variable ``FM_SCALE``."""

from __future__ import annotations

import os
from typing import TypeVar

from fm_core._checks import check_choice

__all__ = ["SCALES", "scaled"]

SCALES = ("smoke", "default", "full")

T = TypeVar("T")


def scaled(*, smoke: T, default: T, full: T) -> T:
    """The value for the size in ``FM_SCALE``, which is ``default`` where unset or empty.

    Args:
        smoke: for the tests; just enough to run every line.
        default: for the book's build on two CPU cores.
        full: for a GPU.

    Raises:
        ValueError: another size.

    Example:
        >>> steps = scaled(smoke=2, default=200, full=20_000)
    """
    scale = os.environ.get("FM_SCALE", "").strip() or "default"
    check_choice("FM_SCALE", scale, SCALES)
    return {"smoke": smoke, "default": default, "full": full}[scale]
