"""Comparisons over several trainings: curves against NFE and time, differences, rows of intervals.

One decision is made here. A mean over three trainings says little without them, so whatever has an interval over seeds
is drawn with each seed's value as a small dot beside it. Networks differ in colour and marker, solvers in line style;
a published network has the colour of its kind and an open marker, and no bar where it has one seed only.

An *estimate* is what :func:`fm_book.experiments.intervals.seed_interval` gives and the records hold: a mapping with
``mean``, ``low``, ``high`` (None where one seed gives no interval) and, if wanted as dots, ``values``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_core.plotting.style import COLORS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "NETWORK_LABELS",
    "SOLVER_LABELS",
    "comparison_legend",
    "difference_curves",
    "interval_rows",
    "metric_curves",
    "network_style",
    "plain_log",
    "time_curves",
]

NETWORK_LABELS: dict[str, str] = {
    "residual": "Residual",
    "base-matched": "Base, matched",
    "base": "Base",
    "published-residual": "Residual, published",
    "published-base": "Base, published",
}
"""Names of the compared networks, for legends."""

SOLVER_LABELS: dict[str, str] = {"euler": "Euler", "rk4": "RK4"}
"""Names of the solvers, for legends."""

_LINES = {"euler": "-", "rk4": "--"}
_COLORS = {"residual": COLORS["residual"], "base-matched": "#009E73", "base": COLORS["base"]}
_MARKERS = {"residual": "o", "base-matched": "D", "base": "s"}
_SPREAD = 1.05  # neighbours at one NFE stand this factor apart, so that their bars do not hide each other


def network_style(name: str) -> dict[str, Any]:
    """Keyword arguments for ``ax.plot`` that draw a network of the comparison the same way everywhere.

    Args:
        name: a key of :data:`NETWORK_LABELS`.

    Raises:
        ValueError: another name.
    """
    if name not in NETWORK_LABELS:
        raise ValueError(f"name={name!r} is no network of the comparison; take one of {', '.join(NETWORK_LABELS)}.")
    kind = name.removeprefix("published-")
    style = {"color": _COLORS[kind], "marker": _MARKERS[kind], "markersize": 5, "label": NETWORK_LABELS[name]}
    return style | ({"markerfacecolor": "white", "linewidth": 1} if kind != name else {})


def metric_curves(
    ax: Axes,
    cells: Mapping[str, Mapping[str, Mapping[str, Any]]],
    metric: str,
    *,
    solvers: Sequence[str] = ("euler", "rk4"),
    floor: float | None = None,
    log: bool = False,
) -> None:
    """A metric against NFE: mean over seeds with its interval, each seed as a dot, a line per network and solver.

    Args:
        ax: to draw on.
        cells: ``{network: {"SOLVER-NFE": {metric: estimate}}}``, as the record's ``cells``.
        metric: which one.
        solvers: which of the cells' solvers.
        floor: value of real digits; a dotted line.
        log: a logarithmic axis for the metric.

    Raises:
        ValueError: a solver that no cell has.

    Explained in the chapter *Residual vs. Base, fairly*.
    """
    for k, (name, by_cell) in enumerate(cells.items()):
        for solver in solvers:
            nfes, estimates = _of_solver(by_cell, solver, metric)
            style = network_style(name) | {"linestyle": _LINES[solver]}
            _draw(ax, nfes * _SPREAD ** (k - (len(cells) - 1) / 2), estimates, style)
    if floor is not None:
        ax.axhline(floor, color=INK, linestyle=":", linewidth=1.2, label="real digits")
    if log:
        plain_log(ax.yaxis)
    _nfe_axis(ax, next(iter(cells.values())))


def difference_curves(
    ax: Axes,
    differences: Mapping[str, Mapping[str, Mapping[str, Any]]],
    metric: str,
    *,
    solvers: Sequence[str] = ("euler", "rk4"),
) -> None:
    """Differences of a metric against NFE, beside a line at zero: what an interval does not reach is not chance alone.

    Args:
        ax: to draw on.
        differences: ``{network: {"SOLVER-NFE": {metric: estimate}}}``; each network minus a common one. The network
            decides the style.
        metric: which one.
        solvers: which of the cells' solvers.

    Explained in the chapter *Residual vs. Base, fairly*.
    """
    count = len(differences) * len(solvers)
    places = iter(np.arange(count) - (count - 1) / 2)
    for name, by_cell in differences.items():
        for solver in solvers:
            nfes, estimates = _of_solver(by_cell, solver, metric)
            style = network_style(name) | {"linestyle": _LINES[solver]}
            _draw(ax, nfes * _SPREAD ** next(places), estimates, style)
    ax.axhline(0, color=INK, linewidth=1)
    _nfe_axis(ax, next(iter(differences.values())))


def comparison_legend(
    figure: Figure, networks: Sequence[str], *, solvers: Sequence[str] = (), floor: bool = False
) -> None:
    """One legend above all panels: colours and markers for networks, line styles for solvers.

    Args:
        figure: with a constrained layout, as :func:`fm_core.plotting.use_style` sets it.
        networks: keys of :data:`NETWORK_LABELS`.
        solvers: keys of :data:`SOLVER_LABELS`; none where all curves have the same.
        floor: name the dotted line of real digits.
    """
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="-", **network_style(name)) for name in networks]
    handles += [Line2D([], [], color=INK, linestyle=_LINES[s], label=SOLVER_LABELS[s]) for s in solvers]
    if floor:
        handles.append(Line2D([], [], color=INK, linestyle=":", linewidth=1.2, label="real digits"))
    columns = len(handles) if len(handles) <= 5 else -(-len(handles) // 2)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=10)


def time_curves(ax: Axes, t: Sequence[float], curves: Mapping[str, Mapping[str, Any]], *, zero: bool = False) -> None:
    """Curves over time with their interval as a band.

    Args:
        ax: to draw on.
        t: ``(T,)``, times.
        curves: ``{network: {"mean", "low", "high"}}``, each ``(T,)``; entries of ``low`` and ``high`` may be None.
        zero: draw a line at zero, for differences.

    Explained in the chapter *Residual vs. Base, fairly*.
    """
    for name, curve in curves.items():
        style = network_style(name)
        ax.plot(t, curve["mean"], linestyle="-", markevery=2, **style)
        low, high = (np.array(curve[end], dtype=float) for end in ("low", "high"))  # None becomes NaN
        if not np.isnan(low).all():
            ax.fill_between(t, low, high, color=style["color"], alpha=0.22, linewidth=0)
    if zero:
        ax.axhline(0, color=INK, linewidth=1)
    ax.set(xlabel="time t (0 noise, 1 data)", xlim=(0, 1))


def interval_rows(ax: Axes, rows: Mapping[str, Mapping[str, Any]], *, zero: bool = False) -> None:
    """One row per estimate: the mean as a marker with its interval, each seed's value as a small dot above it.

    Args:
        ax: to draw on.
        rows: ``{label: estimate}``, from the top. A label that names a network of the comparison gets its style.
        zero: draw a line at zero, for differences.

    Explained in the chapter *Residual vs. Base, fairly*.
    """
    for k, (label, estimate) in enumerate(rows.items()):
        style = network_style(label) if label in NETWORK_LABELS else {"color": INK, "marker": "o", "markersize": 5}
        color = style.pop("color")
        style.pop("label", None)
        if estimate["low"] is not None:
            ax.plot([estimate["low"], estimate["high"]], [k, k], color=color, linestyle="-", linewidth=1.6)
        ax.plot(estimate["mean"], k, color=color, linestyle="none", **style)
        values = estimate.get("values", ())
        if len(values) > 1:
            ax.plot(values, np.full(len(values), k - 0.28), ".", color=color, markersize=4, linestyle="none")
    ax.set_yticks(range(len(rows)), [NETWORK_LABELS.get(label, label) for label in rows])
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.grid(visible=False, axis="y")
    if zero:
        ax.axvline(0, color=INK, linewidth=1)


def plain_log(axis: Axis) -> None:
    """Make an axis logarithmic, with ticks such as 1, 2, 5 and 10 written as plain numbers.

    Args:
        axis: ``ax.xaxis`` or ``ax.yaxis``.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _of_solver(by_cell: Mapping[str, Mapping[str, Any]], solver: str, metric: str) -> tuple[np.ndarray, list[Any]]:
    """NFEs of a solver's cells and the metric's estimates there."""
    found = [(int(key.rpartition("-")[2]), cell[metric]) for key, cell in by_cell.items() if key.startswith(solver)]
    if not found:
        raise ValueError(f"solvers hold {solver!r}, but the cells are {', '.join(by_cell)}.")
    nfes, estimates = zip(*found, strict=True)
    return np.array(nfes, dtype=float), list(estimates)


def _draw(ax: Axes, x: np.ndarray, estimates: Sequence[Mapping[str, Any]], style: dict[str, Any]) -> None:
    """A curve through the means, a bar for each interval, a dot for each seed."""
    ax.plot(x, [e["mean"] for e in estimates], **style)
    for place, e in zip(x, estimates, strict=True):
        if e["low"] is not None:
            ax.plot([place] * 2, [e["low"], e["high"]], color=style["color"], linestyle="-", linewidth=1.2, alpha=0.8)
        if len(e.get("values", ())) > 1:
            dots = {"marker": ".", "markersize": 3, "linestyle": "none", "alpha": 0.7}
            ax.plot([place * _SPREAD**0.4] * len(e["values"]), e["values"], color=style["color"], **dots)


def _nfe_axis(ax: Axes, by_cell: Mapping[str, Any]) -> None:
    """A logarithmic axis with a tick at each NFE."""
    nfes = sorted({int(key.rpartition("-")[2]) for key in by_cell})
    ax.set_xscale("log")
    ax.set_xticks(nfes, [str(nfe) for nfe in nfes])
    ax.minorticks_off()
    ax.set_xlabel("network evaluations, NFE")
