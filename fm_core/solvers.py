"""Turn a velocity field into a trajectory: Runge-Kutta tableaux as data, run by one loop.

A method is a table of numbers (:data:`TABLEAUX`), a time grid is a tensor made by a function, and :func:`solve` is the
only loop. Three decisions keep its cost at that of the network. Every time the network will be asked for is worked out
once, in float64 on the CPU, and put on the state's device in one copy, so no step waits for a GPU. A slope is added to
the stages that need it as soon as it is known and then let go, so no step keeps a list of slopes. States and
velocities go straight into preallocated tensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_core.grids import checked_grid, paced_grid, uniform_grid

__all__ = [
    "TABLEAUX",
    "Tableau",
    "Trajectory",
    "Velocity",
    "evaluate",
    "from_torchdiffeq",
    "paced_grid",
    "solve",
    "uniform_grid",
]

Velocity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method as numbers.

    ``k_i = v(x + h Σ_{j<i} a_ij k_j, t + c_i h)``, then ``x ← x + h Σ_i b_i k_i``

    Attributes:
        a: weights of the earlier slopes in each stage; row i holds i numbers, so the first row is empty.
        b: weights of the slopes in the step.
        c: when each stage looks, in steps from the start of the step; ``c[0]`` is 0.
        order: the error at a fixed end time shrinks like ``h**order``.

    Raises:
        ValueError: rows that do not make an explicit method, or weights b that do not add up to 1.

    Source: Hairer, Nørsett, Wanner 1993, section II.1. Explained in the chapter *Integrating the flow*.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        rows = [len(row) for row in self.a]
        if rows != list(range(len(self.b))) or len(self.c) != len(self.b) or not self.b or self.c[0] != 0:
            raise ValueError(
                f"a has rows of {rows} numbers, b has {len(self.b)} and c is {self.c}; an explicit method of s stages "
                "has rows of 0, 1, ..., s - 1 numbers, s weights b and s times c that start with 0."
            )
        if abs(sum(self.b) - 1) > 1e-9:
            raise ValueError(f"b={self.b} adds up to {sum(self.b):g}; the weights of a step must add up to 1.")

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


def from_torchdiffeq(func: Callable[[Tensor, Tensor], Tensor]) -> Velocity:
    """A right-hand side written for torchdiffeq as a velocity: ``velocity(x, t) = func(t, x)``.

    Args:
        func: called as ``func(t, x)`` with a scalar tensor t; a function or an ``nn.Module``.
    """
    return lambda x, t: func(t, x)


@torch.no_grad()
def solve(
    velocity: Velocity,
    x: Tensor,
    t: Tensor | np.ndarray | Sequence[float],
    *,
    method: str | Tableau = "euler",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    callback: Callable[[int, Tensor, Tensor], Any] | None = None,
    progress: bool | None = None,
    keep: bool = True,
) -> Trajectory:
    """Carry ``x`` along a velocity field.

    ``dx/dt = v(x, t)`` from ``t[0]`` to ``t[-1]``, without gradients.

    Args:
        velocity: called as ``velocity(x, t)`` with the state and a scalar tensor t; returns the shape of ``x``. Any
            callable will do; networks are best put in eval mode first. It must not change its input.
        x: state at ``t[0]``, ``(B, ...)``, floating point; left as it is.
        t: times, one-dimensional: rising to sample, falling to go from data to noise. A fixed-step method takes one
            step from each time to the next and asks for no time outside.
        method: ``"euler"``, ``"midpoint"``, ``"heun"``, ``"rk4"``, a :class:`Tableau` of your own, or ``"dopri5"``,
            which chooses its steps itself and only reports at ``t``.
        rtol, atol: relative and absolute error allowed per step of ``"dopri5"``; the fixed-step methods ignore both.
        callback: called as ``callback(i, t[i], x[i])`` for i = 1, ..., T - 1, after each step (``"dopri5"``: in the
            same order, once all is done). It may keep the state it is given but must not change it.
        progress: ``True`` shows a bar, ``False`` none, ``None`` only on a run that will take some seconds more.
        keep: keep every state and the velocity there. ``velocity[-1]``, and each of ``"dopri5"``'s, is an evaluation
            more, which ``nfe`` leaves out because ``x[-1]`` does not need it. ``False``: the last state alone
            (``T = 1``, no velocity), the memory and the time of sampling.

    Returns:
        The trajectory; ``nfe`` is stages times steps, or for ``"dopri5"`` the evaluations made.

    Raises:
        ValueError: an unknown method; times that are too few, not finite or not strictly monotone; an ``x`` that is no
            floating-point tensor; a velocity of another shape; a tolerance that is not positive.
        RuntimeError: ``"dopri5"`` finds no step small enough.

    Source: Hairer, Nørsett, Wanner 1993, section II.1; Dormand and Prince 1980 for ``"dopri5"``. Explained in the
    chapter *Integrating the flow*.
    """
    tableau = method if isinstance(method, Tableau) else TABLEAUX.get(method)
    if tableau is None and method != "dopri5":
        names = ", ".join(map(repr, [*TABLEAUX, "dopri5"]))
        raise ValueError(f"method={method!r} is unknown; choose one of {names}, or pass a Tableau.")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x is {got}; a state is a floating-point tensor. Cast it, for example x.float().")
    grid = checked_grid(t)
    times = grid.to(x.device, torch.promote_types(x.dtype, torch.float32))
    with closing(_Progress(len(grid) - 1, progress)) as bar:
        if tableau is not None:
            return _runge_kutta(velocity, x, grid, times, tableau, callback, bar, keep)
        return _adaptive(velocity, x, grid, times, rtol, atol, callback, bar, keep)


def _runge_kutta(velocity, x, grid, times, tableau, callback, bar, keep) -> Trajectory:
    rows = (*tableau.a, tableau.b)  # row i makes state i from the slopes before it; the last row, b, makes the step
    last = tableau.stages
    c = torch.tensor(tableau.c, dtype=grid.dtype)
    asked = torch.lerp(grid[:-1, None], grid[1:, None], c).to(times)  # (T - 1, stages); lerp meets both ends exactly
    states = slopes = None
    if keep:
        states = x.new_empty((len(grid), *x.shape))  # (T, B, ...)
        slopes = torch.empty_like(states)
        states[0] = x
    for k, h in enumerate(grid.diff().tolist()):
        stage = [x] * len(rows)
        for j, s in enumerate(asked[k].unbind()):
            slope = evaluate(velocity, stage[j], s)
            if keep and j == 0:
                slopes[k] = slope
            for i in range(j + 1, len(rows)):
                weight = h * rows[i][j]
                if weight and stage[i] is x:
                    stage[i] = torch.add(x, slope, alpha=weight, out=states[k + 1] if keep and i == last else None)
                elif weight:
                    stage[i].add_(slope, alpha=weight)
        x = stage[last]
        if callback is not None:
            callback(k + 1, times[k + 1], x)
        bar.update(k + 1)
    nfe = last * (len(grid) - 1)
    if not keep:
        return Trajectory(times[-1:], x[None], None, nfe)
    slopes[-1] = evaluate(velocity, x, times[-1])
    return Trajectory(times, states, slopes, nfe)


def _adaptive(velocity, x, grid, times, rtol, atol, callback, bar, keep) -> Trajectory:
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"rtol={rtol}, atol={atol}: both must be positive, for example 1e-5.")
    from torchdiffeq import odeint

    if not keep and callback is None:
        grid = grid[[0, -1]]
    start, end = grid[0].item(), grid[-1].item()
    nfe = 0

    def func(s: Tensor, y: Tensor) -> Tensor:
        nonlocal nfe
        nfe += 1
        if bar.wanted is not False:
            bar.update(bar.steps * (float(s) - start) / (end - start))
        return evaluate(velocity, y, s.clamp(min(start, end), max(start, end)))  # the first guess may overshoot

    try:  # step_t makes the last step land on the end instead of passing it
        options = {"step_t": grid[-1:]}
        states = odeint(func, x, grid.to(x.device), rtol=rtol, atol=atol, method="dopri5", options=options)
    except AssertionError as error:
        raise RuntimeError(
            f"dopri5 stopped after {nfe} evaluations of the velocity: {error}. Check that the velocity is finite on "
            f"the way, or allow more error than rtol={rtol:g}, atol={atol:g}."
        ) from error
    bar.update(bar.steps)
    for k in range(1, len(grid)) if callback is not None else ():
        callback(k, times[k], states[k])
    if not keep:
        return Trajectory(times[-1:], states[-1:].clone(), None, nfe)
    slopes = torch.empty_like(states)
    for k, s in enumerate(times.unbind()):
        slopes[k] = evaluate(velocity, states[k], s)
    return Trajectory(times, states, slopes, nfe)


def evaluate(velocity: Velocity, x: Tensor, t: Tensor) -> Tensor:
    """``velocity(x, t)`` in the state's precision.

    Raises:
        ValueError: what came back is no tensor of the state's shape.
    """
    slope = velocity(x, t)
    if not isinstance(slope, Tensor) or slope.shape != x.shape:
        got = f"shape {tuple(slope.shape)}" if isinstance(slope, Tensor) else f"a {type(slope).__name__}"
        raise ValueError(
            f"velocity returned {got} for a state of shape {tuple(x.shape)}; velocity(x, t) must return a tensor of "
            "the state's shape. A function written as func(t, x) goes through from_torchdiffeq."
        )
    return slope.to(x.dtype)


class _Progress:
    """A bar that appears when asked for, or when a second has gone and more than three are to come."""

    def __init__(self, steps: int, wanted: bool | None) -> None:
        self.steps, self.wanted, self.bar, self.start = steps, wanted, None, time.perf_counter()

    def update(self, done: float) -> None:
        elapsed = time.perf_counter() - self.start
        long = self.wanted is None and elapsed > 1 and elapsed * (self.steps - done) > 3 * done
        if self.bar is None and (self.wanted or long):
            from tqdm.auto import tqdm

            self.bar = tqdm(total=self.steps, initial=int(done), unit="step")
        if self.bar is not None:
            self.bar.update(max(0, int(done) - self.bar.n))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
