"""Estimates with intervals: the bootstrap over samples, Student's t over seeds.

Resampling with replacement copies samples, which biases some metrics: the Fréchet distance of a resample is *larger*
than that of the set. So the percentiles are taken around the resamples' own mean and laid around the value.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from fm_core._checks import check_count, check_finite, check_number, check_type, described

__all__ = ["Estimate", "bootstrap_interval", "proportion_interval", "seed_difference", "seed_interval"]

MAX_RESAMPLES = 100_000
AT_ONCE = 10_000_000  # indices that the resamples hold in memory at a time


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; the one interval type of the book.

    ``f"{estimate:.3f}"`` gives ``0.812 [0.790, 0.833]``.

    Attributes:
        mean: the value.
        low, high: ends of the interval; None where there is none, as for a single seed.
        values: what the mean was taken over, one number a seed; may be empty.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    values: tuple[float, ...] = ()

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Estimate:
        """The estimate that a record holds under ``mean``, ``low``, ``high`` and, if there, ``values``."""
        return cls(entry["mean"], entry.get("low"), entry.get("high"), tuple(entry.get("values", ())))

    def entry(self) -> dict[str, Any]:
        """What a record holds; :meth:`read` reads it."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "values": list(self.values)}

    def __format__(self, spec: str) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:{spec}}"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: Any,
    paired: bool = False,
    resamples: int = 300,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic of one or more samples, with its bootstrap interval.

    ``[T + q_low, T + q_high]``, with T the statistic of the samples as they are, and q the quantiles of
    ``T* - mean(T*)``, where T* is the statistic of a resample with replacement. For a mean this is the percentile
    interval.

    The interval answers: how far might this number move if as many *other* samples were drawn? It covers neither the
    bias of a metric nor another training of the network. Two known limits: where every sample scores the same, the
    interval has no width (with N of N right, up to 3/N wrong ones remain plausible); and near its floor the Fréchet
    distance spreads less than its resamples do, so the interval is wider than it need be.

    Args:
        statistic: takes as many tensors as there are samples and returns a number.
        samples: tensors or arrays, drawn from along their first axis; floating-point ones reach the statistic as
            float64, on the CPU.
        paired: draw the same rows from each sample, as for two networks that started from the same noise.
        resamples: how many, at most 100,000; 300 give ends to about a tenth of the interval's width, 0 gives none.
        level: share of cases in which the interval shall hold the truth, between 0 and 1.
        seed: of the resamples.

    Returns:
        The statistic of the samples with the ends of the interval.

    Raises:
        ValueError: fewer than two rows, or, where paired, different numbers of them; rows with NaN or infinity; a level
            or a number of resamples out of range.

    Source: Efron 1979. Explained in the chapter *Metrics and their blind spots*.

    Example:
        >>> bootstrap_interval(torch.mean, confidence(images))
        >>> bootstrap_interval(lambda x: frechet_distance(x, reference), features(images))
    """
    check_type("statistic", statistic, Callable, "a function of as many tensors as there are samples")
    resamples, level = check_count("resamples", resamples, least=0, most=MAX_RESAMPLES), check_level(level)
    seed = check_count("seed", seed, least=0, most=2**62)
    rows = [_as_rows(sample) for sample in samples]
    counts = [len(r) for r in rows]
    if not rows or min(counts) < 2 or (paired and len(set(counts)) > 1):
        raise ValueError(
            f"samples: expected at least two rows of each{', as many in each' if paired else ''}, got "
            f"{' and '.join(map(str, counts)) or 'none'}."
        )

    def on_rows(*picks: np.ndarray) -> float:
        return float(statistic(*(r[torch.from_numpy(p)] for r, p in zip(rows, picks, strict=True))))

    value = float(statistic(*rows))
    if resamples == 0:
        return Estimate(value)
    drawn = stats.bootstrap(
        [np.arange(n) for n in counts],
        on_rows,
        n_resamples=resamples,
        batch=max(1, AT_ONCE // max(counts)),
        vectorized=False,
        paired=paired,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution
    low, high = np.quantile(drawn - drawn.mean(), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, value + float(low), value + float(high))


def seed_interval(
    values: Sequence[float], level: float = 0.95, *, within: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """Mean over seeds with Student's interval, ``mean ± t_{n-1} s / √n``; no interval for a single seed.

    Args:
        values: one number a seed.
        level: coverage, in (0, 1).
        within: values that are possible, such as (0, 1) for shares; the interval is cut there.

    Raises:
        ValueError: no value, one that is not finite, or a level that is not between 0 and 1.
    """
    found, level = _as_numbers("values", values), check_level(level)
    mean = statistics.fmean(found)
    if len(found) == 1:
        return Estimate(mean, values=found)
    half = float(stats.t.ppf((1 + level) / 2, len(found) - 1)) * statistics.stdev(found) / math.sqrt(len(found))
    return Estimate(mean, max(mean - half, within[0]), min(mean + half, within[1]), found)


def proportion_interval(hits: Any, level: float = 0.95) -> Estimate:
    """Share of the true ones, with Wilson's interval, which stays within [0, 1] and has a width at 0 and 1.

    Args:
        hits: independent yes or no, ``(N,)``, N at least 1.
        level: coverage, in (0, 1).

    Source: Wilson 1927.
    """
    rows = _as_rows(hits).bool()
    if rows.ndim != 1 or not len(rows):
        raise ValueError(f"hits: expected one row of yes or no, got {described(hits)}.")
    found = stats.binomtest(int(rows.sum()), len(rows)).proportion_ci(check_level(level), method="wilson")
    return Estimate(float(rows.double().mean()), float(found.low), float(found.high))


def seed_difference(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Estimate:
    """:func:`seed_interval` of ``a - b``, paired seed by seed.

    Raises:
        ValueError: different numbers of seeds, or none.
    """
    first, second = _as_numbers("a", a), _as_numbers("b", b)
    if len(first) != len(second):
        raise ValueError(f"a, b: expected the same seeds in both, got {len(first)} and {len(second)} values.")
    return seed_interval([x - y for x, y in zip(first, second, strict=True)], level)


def check_level(level: float) -> float:
    """``level`` itself; ValueError unless it is a number between 0 and 1."""
    return check_number("level", level, above=0, below=1)


def _as_numbers(name: str, values: Any) -> tuple[float, ...]:
    """A row of finite numbers, at least one; ValueError for anything else."""
    rows = isinstance(values, list | tuple | np.ndarray | Tensor) and getattr(values, "ndim", 1) > 0
    if not rows or not len(values):
        got = "none" if isinstance(values, list | tuple) else described(values)
        raise ValueError(f"{name}: expected one number a seed, got {got}.")
    return tuple(check_number(name, value) for value in values)


def _as_rows(sample: Any) -> Tensor:
    try:
        rows = torch.as_tensor(sample).detach().cpu()
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"samples: expected tensors or arrays, got {described(sample)}.") from error
    if rows.ndim == 0 or rows.is_complex() or rows.layout != torch.strided:
        raise ValueError(f"samples: expected rows of real numbers, got {described(sample)}.")
    check_finite("samples", rows.double())
    return rows.double() if rows.is_floating_point() else rows
