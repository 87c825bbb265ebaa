"""Compare two callables on a machine that other programs share.

Two timings taken one after the other also measure what else the machine was doing. So the contenders take turns: in
every round each runs once, in an order that flips from round to round, and the round gives one ratio. The median of
these ratios is the result and their quartiles are its spread. The same is done with the CPU time of this process,
which other programs' turns on the cores do not lengthen: on a busy machine it says whether a slow round was ours.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

__all__ = ["interleaved_ratio"]


def interleaved_ratio(
    fast: Callable[[], Any], reference: Callable[[], Any], rounds: int, *, warmup: int = 1
) -> dict[str, float]:
    """Time of ``fast`` over time of ``reference``, the two taking turns: ``ratio < 1`` where ``fast`` is faster.

    Args:
        fast: the contender, called without arguments. On a GPU it must end with ``torch.cuda.synchronize()``. One
            that returns a tuple, its wall and CPU seconds, has timed itself.
        reference: what it is compared with; it has to do the same work.
        rounds: how often each is timed, at least 3.
        warmup: untimed calls of each before the first round.

    Returns:
        ``ratio`` (median of the rounds' ratios), ``lo`` and ``hi`` (their quartiles), ``cpu_ratio`` (the median for
        CPU time, over all threads), ``seconds`` and ``reference_seconds`` (median of each contender's times) and
        ``rounds``.

    Raises:
        ValueError: fewer than 3 rounds.
    """
    if rounds < 3:
        raise ValueError(f"rounds={rounds}: quartiles need at least 3 rounds; try rounds=11.")
    for _ in range(warmup):
        fast()
        reference()
    times: list[tuple[float, float]] = []  # wall, CPU
    reference_times: list[tuple[float, float]] = []
    for i in range(rounds):
        for contender, taken in ((fast, times), (reference, reference_times))[:: -1 if i % 2 else 1]:
            wall, cpu = time.perf_counter(), time.process_time()
            own = contender()
            whole = time.perf_counter() - wall, time.process_time() - cpu
            taken.append(own if isinstance(own, tuple) else whole)
    pairs = list(zip(times, reference_times, strict=True))
    lo, middle, hi = statistics.quantiles([a[0] / b[0] for a, b in pairs], n=4, method="inclusive")
    return {
        "ratio": middle,
        "lo": lo,
        "hi": hi,
        "cpu_ratio": statistics.median(a[1] / b[1] for a, b in pairs),
        "seconds": statistics.median(wall for wall, _ in times),
        "reference_seconds": statistics.median(wall for wall, _ in reference_times),
        "rounds": rounds,
    }
