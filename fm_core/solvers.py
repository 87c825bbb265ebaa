"""From a velocity field to a trajectory: Runge-Kutta tableaux as data, one loop, time grids.

Grids are float64 on the CPU: step sizes are differences of neighbouring times and should not carry the rounding of a
float32 state. The stage times are put on the state's device in one copy, so that no step waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm  # text on stderr: a widget would leave a dead bar in a built page

from fm_core._checks import (
    as_tensor,
    check_choice,
    check_count,
    check_number,
    check_type,
    check_velocity,
    described,
    missing_extra,
)
from fm_core.pacing import Pacing, pacing_function

__all__ = [
    "TABLEAUX",
    "Tableau",
    "Times",
    "Trajectory",
    "Velocity",
    "integrate",
    "paced_grid",
    "sample",
    "solve",
    "uniform_grid",
]

Velocity = Callable[[Tensor, Tensor], Tensor]
Times = Tensor | np.ndarray | Sequence[float]

MAX_STEPS = 100_000  # of a time grid
MAX_EVALUATIONS = 20_000  # of dopri5, each batch counted once


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method as numbers.

    ``k_i = v(x + h Σ_{j<i} a_ij k_j, t + c_i h)``, then ``x ← x + h Σ_i b_i k_i``

    Attributes:
        a: weights of the earlier stage derivatives in each stage; row i holds i numbers, so the first row is empty.
        b: weights of the stage derivatives in the step.
        c: times of the stages, in steps from the start of the step; ``c[0]`` is 0.
        order: the error at a fixed end time shrinks like ``h**order``.

    Raises:
        ValueError: rows that do not make an explicit method, numbers that are not finite, or weights b that do not add
            up to 1.

    Source: Hairer, Nørsett, Wanner 1993, section II.1. Explained in the chapter *Integrating the flow*.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        for name, rows in (("a", self.a), ("b", (self.b,)), ("c", (self.c,))):
            for row in check_type(name, rows, tuple | list, "rows of numbers"):
                for number in check_type(name, row, tuple | list, "a row of numbers"):
                    check_number(name, number)
        check_count("order", self.order, most=100)
        rows = [len(row) for row in self.a]
        if rows != list(range(len(self.b))) or len(self.c) != len(self.b) or not self.b or self.c[0] != 0:
            raise ValueError(
                "a, b, c: expected s rows a of 0, 1, ..., s - 1 numbers, s weights b and s times c that start with 0, "
                f"got rows of {rows}, {len(self.b)} weights and c={self.c}."
            )
        if abs(sum(self.b) - 1) > 1e-9:
            raise ValueError(f"b: expected weights that add up to 1, got {self.b}, which add up to {sum(self.b):g}.")

    @property
    def stages(self) -> int:
        """Evaluations of the velocity per step."""
        return len(self.b)


TABLEAUX: dict[str, Tableau] = {
    "euler": Tableau(a=((),), b=(1.0,), c=(0.0,), order=1),
    "midpoint": Tableau(a=((), (1 / 2,)), b=(0.0, 1.0), c=(0.0, 1 / 2), order=2),
    "heun": Tableau(a=((), (1.0,)), b=(1 / 2, 1 / 2), c=(0.0, 1.0), order=2),
    "rk4": Tableau(
        a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
        c=(0.0, 1 / 2, 1 / 2, 1.0),
        order=4,
    ),
}


@dataclass(frozen=True, eq=False)
class Trajectory:
    """States along a flow.

    Attributes:
        t: times, ``(T,)``, in the state's precision and on its device.
        x: states, ``(T, B, ...)``; ``x[0]`` is the start, ``x[-1]`` the end.
        velocity: ``velocity[k] = v(x[k], t[k])``, ``(T, B, ...)``; ``None`` where it was not kept.
        nfe: evaluations of the velocity that ``x[-1]`` took.
    """

    t: Tensor
    x: Tensor
    velocity: Tensor | None
    nfe: int


def sample(
    velocity: Velocity,
    x: Tensor,
    steps: int | Times = 20,
    *,
    method: str | Tableau = "euler",
    progress: bool | None = None,
) -> Tensor:
    """Carry noise to data and return the end only.

    Args:
        velocity: called as ``velocity(x, t)`` with a scalar tensor t; returns the shape of ``x``.
        x: state at the first time, ``(B, ...)``, floating point; arrays and lists become float32.
        steps: number of equal steps from t = 0 to t = 1, or a time grid.
        method: as in :func:`solve`.
        progress: as in :func:`solve`.

    Returns:
        The state at the last time, the shape of ``x``. It took ``steps`` times the method's stages evaluations.

    Raises:
        ValueError: what :func:`solve` and :func:`uniform_grid` refuse.
        FloatingPointError: as :func:`solve`.
    """
    return integrate(velocity, x, as_steps(steps), method=method, progress=progress)[0]


@torch.no_grad()
def solve(
    velocity: Velocity,
    x: Tensor,
    t: Times,
    *,
    method: str | Tableau = "euler",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    progress: bool | None = None,
) -> Trajectory:
    """Solve ``dx/dt = v(x, t)`` and keep the state and the velocity at every time of the grid. Without gradients.

    Args:
        velocity: called as ``velocity(x, t)`` with the state and a scalar tensor t; returns the shape of ``x``. It
            must not change its input. Networks are best put in evaluation mode first.
        x: state at ``t[0]``, ``(B, ...)``, floating point; arrays and lists become float32. Not changed.
        t: times, one-dimensional: rising from noise to data, falling from data to noise. Fixed-step methods take one
            step from each time to the next and evaluate at no time outside. At most 100,000 steps.
        method: ``"euler"``, ``"midpoint"``, ``"heun"``, ``"rk4"``, a :class:`Tableau`, or ``"dopri5"``, which chooses
            its steps itself and reports at ``t``.
        rtol, atol: relative and absolute error allowed per step of ``"dopri5"``.
        progress: show a bar; by default only when the solution takes more than a second.

    Returns:
        The trajectory. ``nfe`` is stages times steps, or for ``"dopri5"`` the evaluations made; the velocity that is
        kept at the last time is not counted.

    Raises:
        ValueError: an unknown method; times that are too few, too many, not finite or not strictly monotone; an ``x``
            that is not floating point or not finite; a velocity of another shape; a tolerance that is not positive.
        FloatingPointError: a fixed-step method met NaN or infinity; the error names the step.
        RuntimeError: ``"dopri5"`` finds no step small enough, or does not end within 20,000 evaluations.
        ImportError: ``"dopri5"`` without torchdiffeq.

    Source: Hairer, Nørsett, Wanner 1993, section II.1; Dormand and Prince 1980 for ``"dopri5"``. Explained in the
    chapter *Integrating the flow*.
    """
    grid, x = _checked(velocity, x, t, rtol, atol)
    times = grid.to(x.device, _time_dtype(x))
    if (tableau := _tableau(method)) is None:
        states, nfe = _dopri5(velocity, x, grid, rtol, atol, progress)
        velocities = torch.stack([evaluate(velocity, state, s) for state, s in zip(states, times, strict=True)])
        return Trajectory(times, states, velocities, nfe)
    states, velocities = [x], []
    for k_1, end in _runge_kutta(velocity, x, grid, tableau, progress):
        velocities.append(k_1)
        states.append(end)
    velocities.append(evaluate(velocity, states[-1], times[-1]))
    trajectory = Trajectory(times, torch.stack(states), torch.stack(velocities), tableau.stages * (len(grid) - 1))
    if not _all_finite(trajectory.x):
        _raise_diverged(states[1:], grid)
    return trajectory


@torch.no_grad()
def integrate(
    velocity: Velocity,
    x: Tensor,
    t: Times,
    *,
    method: str | Tableau = "euler",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    progress: bool | None = None,
) -> tuple[Tensor, int]:
    """The end of :func:`solve` and its NFE, with nothing kept on the way."""
    grid, x = _checked(velocity, x, t, rtol, atol)
    if (tableau := _tableau(method)) is None:
        states, nfe = _dopri5(velocity, x, grid[[0, -1]], rtol, atol, progress)
        return states[-1], nfe
    end = x
    for _, state in _runge_kutta(velocity, x, grid, tableau, progress):
        end = state
    if not _all_finite(end):  # once, at the end; a second run finds the step
        _raise_diverged((state for _, state in _runge_kutta(velocity, x, grid, tableau, False)), grid)
    return end, tableau.stages * (len(grid) - 1)


def _runge_kutta(
    velocity: Velocity, x: Tensor, grid: Tensor, tableau: Tableau, progress: bool | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """After each step: the velocity at its start, ``k_1``, and the state at its end."""
    c = torch.tensor(tableau.c, dtype=grid.dtype)
    times = torch.lerp(grid[:-1, None], grid[1:, None], c).to(x.device, _time_dtype(x))  # (steps, stages)
    for stage_times, h in zip(_bar(times, progress), grid.diff().tolist(), strict=True):
        k: list[Tensor] = []
        for a, s in zip(tableau.a, stage_times, strict=True):
            k.append(evaluate(velocity, _moved(x, h, a, k), s))
        x = _moved(x, h, tableau.b, k)
        yield k[0], x


def _moved(x: Tensor, h: float, weights: Sequence[float], k: Sequence[Tensor]) -> Tensor:
    """``x + h Σ_j w_j k_j``."""
    for w, k_j in zip(weights, k, strict=True):
        if w:
            x = torch.add(x, k_j, alpha=h * w)
    return x


def _dopri5(
    velocity: Velocity, x: Tensor, grid: Tensor, rtol: float, atol: float, progress: bool | None
) -> tuple[Tensor, int]:
    """The states at the times of the grid, ``(T, B, ...)``, and the evaluations made."""
    x = as_tensor("x", x, ("B", ...))
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise missing_extra("method='dopri5'", "adaptive") from error
    low, high, nfe = *sorted((grid[0].item(), grid[-1].item())), 0
    bar = tqdm(disable=progress is False, delay=0 if progress else 1.0, unit="evaluation", leave=bool(progress))

    def func(s: Tensor, y: Tensor) -> Tensor:
        nonlocal nfe
        nfe += 1
        if nfe > MAX_EVALUATIONS:
            raise RuntimeError(
                f"dopri5: expected an end within {MAX_EVALUATIONS:,} evaluations, got to t = {s.item():.3g} with "
                f"rtol={rtol:g}, atol={atol:g}. Raise the tolerances, or take a fixed-step method."
            )
        bar.update()
        return evaluate(velocity, y, s.clamp(low, high))  # the first guess may overshoot

    precision = _time_precision(x.device)
    grid = grid.to(precision).to(x.device)
    try:  # step_t makes the last step land on the end instead of passing it
        options = {"step_t": grid[-1:], "dtype": precision}
        states = odeint(func, x, grid, rtol=rtol, atol=atol, method="dopri5", options=options)
    except AssertionError as error:
        raise RuntimeError(
            f"dopri5: expected a step that meets rtol={rtol:g}, atol={atol:g}, got {error} after {nfe} evaluations. "
            "Check that the velocity is finite, or raise the tolerances."
        ) from error
    finally:
        bar.close()
    return torch.as_tensor(states), nfe


def evaluate(velocity: Velocity, x: Tensor, t: Tensor) -> Tensor:
    """``velocity(x, t)`` in the precision of ``x`` and in memory of its own.

    Raises:
        ValueError: what came back is no tensor of the shape of ``x``.
    """
    v = velocity(x, t)
    if not isinstance(v, Tensor) or v.shape != x.shape:
        raise ValueError(
            f"velocity(x, t): expected a tensor of the shape of x, {tuple(x.shape)}, got {described(v)}. A function "
            "func(t, x) becomes a velocity by lambda x, t: func(t, x)."
        )
    return v.to(x.dtype, copy=True)  # a captured CUDA graph returns the same memory each time


def uniform_grid(steps: int, *, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Equally spaced times, ``t_k = start + (end - start) k / steps``.

    Args:
        steps: number of steps, from 1 to 100,000.
        start, end: first and last time, both met exactly; ``start=1.0, end=0.0`` goes from data to noise.

    Returns:
        ``(steps + 1,)``, float64 on the CPU.

    Raises:
        ValueError: no step, or two ends that are equal or not finite.

    Explained in the chapter *Integrating the flow*.
    """
    return paced_grid(steps, "linear", start=start, end=end)


def paced_grid(steps: int, pacing: str | Pacing, *, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Times spaced by a pacing, ``t_k = start + (end - start) p(k / steps)``.

    Args:
        steps: number of steps, from 1 to 100,000.
        pacing: a name in :data:`fm_core.pacing.PACINGS`, or p itself: called with a float64 array, strictly rising from
            p(0) = 0 to p(1) = 1.
        start, end: first and last time, both met exactly.

    Returns:
        ``(steps + 1,)``, float64 on the CPU.

    Raises:
        ValueError: as :func:`uniform_grid`; or a pacing that changes the shape, misses an end or does not rise.

    Explained in the chapter *Integrating the flow*.
    """
    start, end, u = (
        check_number("start", start),
        check_number("end", end),
        np.linspace(0, 1, check_count("steps", steps, most=MAX_STEPS) + 1),
    )
    if start == end:
        raise ValueError(f"start, end: expected two different times, got {start:g} twice.")
    p = np.asarray(pacing_function(pacing)(u), dtype=np.float64)
    if p.shape != u.shape or abs(p[0]) > 1e-6 or abs(p[-1] - 1) > 1e-6 or not (np.diff(p) > 0).all():
        raise ValueError(
            "pacing: expected a function of an array that rises strictly from 0 to 1, such as lambda u: u**2, got "
            f"{np.array2string(p, threshold=6)}."
        )
    grid = start + (end - start) * torch.from_numpy(p)
    grid[0], grid[-1] = start, end  # whatever the pacing rounds to
    return grid


def as_steps(steps: int | Times) -> Tensor:
    """A number of equal steps from 0 to 1, or a time grid, as the grid."""
    if isinstance(steps, list | tuple) or getattr(steps, "ndim", 0):
        return as_grid("steps", steps)  # type: ignore[arg-type]
    return uniform_grid(steps)  # type: ignore[arg-type]


def as_grid(name: str, t: Times) -> Tensor:
    """The times as float64 on the CPU; ValueError unless at least two, not too many, finite and strictly monotone."""
    try:
        listed = np.asarray(t.tolist() if isinstance(t, Tensor) else t)
        grid = torch.from_numpy(listed.astype(np.float64) if listed.dtype.kind in "fiu" else np.empty(0))
    except (TypeError, ValueError, RuntimeError, OverflowError):  # no numbers, a ragged list, on the device meta
        grid = torch.empty(0, dtype=torch.float64)
    steps = grid.diff() if grid.ndim == 1 else grid.new_zeros(1)
    finite = bool(grid.isfinite().all())
    if grid.ndim != 1 or len(grid) < 2 or not finite or not bool((steps > 0).all() or (steps < 0).all()):
        got = np.array2string(grid.numpy(), threshold=6) if grid.numel() else described(t)
        raise ValueError(
            f"{name}: expected at least 2 finite times, strictly rising or falling, got {got}. Make them with "
            "uniform_grid(steps)."
        )
    check_count(f"{name}: number of steps", len(steps), most=MAX_STEPS)
    return grid


def _checked(velocity: Velocity, x: Any, t: Times, rtol: float, atol: float) -> tuple[Tensor, Tensor]:
    """Grid and state as tensors; ValueError unless they can be integrated."""
    check_velocity(velocity)
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        check_number(name, tolerance, above=0)
    if isinstance(x, Tensor) and x.is_meta:  # shapes without values
        return as_grid("t", t), x
    return as_grid("t", t), as_tensor("x", x, ("B", ...), least=0, finite=True)


def _all_finite(x: Tensor) -> bool:
    return x.is_meta or bool(x.isfinite().all())


def _raise_diverged(states: Iterable[Tensor], grid: Tensor) -> None:
    """FloatingPointError that names the first step and sample with NaN or infinity."""
    where = "at the last time"  # if the second run of a random velocity is finite
    for k, x in enumerate(states):
        if not _all_finite(x):
            first = int((~x.isfinite()).reshape(len(x), -1).any(dim=1).nonzero()[0])
            where = (
                f"in step {k + 1} of {len(grid) - 1}, t = {grid[k]:.4g} to {grid[k + 1]:.4g}, first in sample {first}"
            )
            break
    raise FloatingPointError(
        f"velocity(x, t): expected finite values, got NaN or infinity {where}. Take smaller steps, or look into the "
        "velocity there."
    )


def _tableau(method: str | Tableau) -> Tableau | None:
    """The tableau of a fixed-step method; None for dopri5."""
    if isinstance(method, Tableau):
        return method
    check_choice("method", method, [*TABLEAUX, "dopri5"])
    return TABLEAUX.get(method)


def _time_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _time_precision(device: torch.device) -> torch.dtype:
    """Of dopri5's times and steps."""
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64


def _bar(times: Tensor, progress: bool | None) -> Iterator[Tensor]:
    return iter(
        tqdm(times.unbind(), disable=progress is False, delay=0 if progress else 1.0, unit="step", leave=bool(progress))
    )
