"""Checks of arguments; every message reads *name: expected X, got Y. Cure.*"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

__all__ = ["check_choice", "check_count", "check_number", "missing_extra"]


def check_choice(name: str, value: object, options: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``options``."""
    options = list(options)
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}.")


def check_count(name: str, value: Any, least: int = 1) -> int:
    """``value`` as an int; ValueError unless it is a whole number of at least ``least``."""
    number = _number(value)
    if not (number.is_integer() and number >= least):
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}.")
    return int(number)


def check_number(
    name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf
) -> float:
    """``value`` as a float; ValueError unless it is a finite number with above < value, least <= value < below."""
    number = _number(value)
    if not (math.isfinite(number) and above < number < below and number >= least):
        bounds = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
        bounds += [f"below {below:g}"] * (below < math.inf)
        raise ValueError(f"{name}: expected a number {' and '.join(bounds) or 'that is finite'}, got {value!r}.")
    return number


def missing_extra(feature: str, extra: str) -> ImportError:
    """The error for a feature whose optional packages are not installed."""
    return ImportError(f"{feature} needs packages that are not installed: pip install 'fm-core[{extra}]'.")


def _number(value: Any) -> float:
    """A number, or an array or tensor of one number, as a float; NaN for anything else."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    return float(value) if getattr(value, "ndim", None) == 0 and hasattr(value, "__float__") else math.nan
