"""Figures that compare networks over seeds: metrics against NFE and time, differences, intervals, significance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fm_book.figures.common import (
    Entry,
    as_estimate,
    cell_borders,
    check_entries,
    check_texts,
    check_width,
    draw_estimate,
    side_of_zero,
)
from fm_core._checks import check_choice, check_number, check_text, described
from fm_core.plotting._arrays import as_array, check_axes
from fm_core.plotting.style import COLORS, GREEN, INK, PALE, draws_figure

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
    "significance",
    "significance_map",
    "time_curves",
]

Cells: TypeAlias = Mapping[str, Mapping[str, Entry]]
"""``{"SOLVER-NFE": {metric: estimate}}``."""

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

_LINES: dict[str, Any] = {"euler": "-", "rk4": "--"}
_COLORS = {"residual": COLORS["residual"], "base-matched": GREEN, "base": COLORS["base"]}
_MARKERS = {"residual": "o", "base-matched": "D", "base": "s"}
_SPREAD = 1.05  # factor between neighbours at one NFE, whose bars would overlap


def network_style(name: str) -> dict[str, Any]:
    """Keyword arguments for ``ax.plot`` that draw a network of :data:`NETWORK_LABELS` the same way everywhere.

    A published network has the colour of its kind and an open marker. ValueError for another name.
    """
    check_choice("name", name, NETWORK_LABELS)
    kind = name.removeprefix("published-")
    style = {"color": _COLORS[kind], "marker": _MARKERS[kind], "markersize": 5, "label": NETWORK_LABELS[name]}
    return style | ({"markerfacecolor": "white", "linewidth": 1} if kind != name else {})


def metric_curves(
    ax: Axes,
    cells: Mapping[str, Cells],
    metric: str,
    *,
    solvers: Sequence[str] = ("euler", "rk4"),
    real: float | None = None,
    log: bool = False,
) -> None:
    """A metric against NFE: a line per network and solver, with interval and seeds at each NFE.

    Args:
        ax: to draw on.
        cells: ``{network: cells}``, as the record's ``cells``.
        metric: which one.
        solvers: which of the cells' solvers.
        real: value of real digits; a dotted line.
        log: a logarithmic axis for the metric.

    Raises:
        ValueError: a solver that no cell has.

    Explained in the chapter *Residual vs. Base, fairly*.
    """
    check_axes(ax)
    check_entries("cells", cells, 3)
    check_texts("solvers", solvers, Sequence)
    real = None if real is None else check_number("real", real)
    for k, (name, by_cell) in enumerate(cells.items()):
        for solver in solvers:
            nfes, estimates = _of_solver(by_cell, solver, metric)
            style = network_style(name) | {"linestyle": _LINES[solver]}
            _draw(ax, nfes * _SPREAD ** (k - (len(cells) - 1) / 2), estimates, style)
    if real is not None:
        ax.axhline(real, color=INK, linestyle=":", linewidth=1.2, label="real digits")
    if log:
        plain_log(ax.yaxis)
    _nfe_axis(ax, next(iter(cells.values())))


def difference_curves(
    ax: Axes,
    differences: Mapping[str, Cells],
    metric: str,
    *,
    solvers: Sequence[str] = ("euler", "rk4"),
) -> None:
    """Differences of a metric against NFE, with a line at zero.

    Args:
        ax: to draw on.
        differences: ``{network: cells}``, each network minus a common one.
        metric: which one.
        solvers: which of the cells' solvers.

    Explained in the chapter *Residual vs. Base, fairly*.
    """
    check_axes(ax)
    check_entries("differences", differences, 3)
    check_texts("solvers", solvers, Sequence)
    count = len(differences) * len(solvers)
    shifts = iter(np.arange(count) - (count - 1) / 2)
    for name, by_cell in differences.items():
        for solver in solvers:
            nfes, estimates = _of_solver(by_cell, solver, metric)
            style = network_style(name) | {"linestyle": _LINES[solver]}
            _draw(ax, nfes * _SPREAD ** next(shifts), estimates, style)
    ax.axhline(0, color=INK, linewidth=1)
    _nfe_axis(ax, next(iter(differences.values())))


def comparison_legend(
    figure: Figure, networks: Sequence[str], *, solvers: Sequence[str] = (), real: bool = False
) -> None:
    """One legend above all panels: colours and markers for networks, line styles for solvers.

    Args:
        figure: with a constrained layout.
        networks: keys of :data:`NETWORK_LABELS`.
        solvers: keys of :data:`SOLVER_LABELS`.
        real: include the dotted line of real digits.
    """
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="-", **network_style(name)) for name in networks]
    handles += [Line2D([], [], color=INK, linestyle=_LINES[s], label=SOLVER_LABELS[s]) for s in solvers]
    if real:
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
    check_axes(ax)
    check_texts("curves", curves)
    times = as_array(t, "t")
    for name, curve in curves.items():
        parts = [curve.get(k) for k in ("mean", "low", "high")] if isinstance(curve, Mapping) else [None]
        if times.ndim != 1 or any(part is None or len(part) != len(times) for part in parts):
            raise ValueError(f"t, curves[{name!r}]: expected mean, low and high of one length, got {described(curve)}.")
        as_array(curve["mean"], f"curves[{name!r}]['mean']")
        style = network_style(name)
        ax.plot(t, curve["mean"], linestyle="-", markevery=2, **style)
        low, high = (np.array(curve[end], dtype=float) for end in ("low", "high"))  # None becomes NaN
        if not np.isnan(low).all():
            ax.fill_between(t, low, high, color=style["color"], alpha=0.22, linewidth=0)
    if zero:
        ax.axhline(0, color=INK, linewidth=1)
    ax.set(xlabel="time t (0 noise, 1 data)", xlim=(0, 1))


def interval_rows(ax: Axes, rows: Mapping[str, Entry], *, zero: bool = False) -> None:
    """One row per estimate, with interval and seeds.

    Args:
        ax: to draw on.
        rows: ``{label: estimate}``, from the top. A label that names a network of the comparison gets its style.
        zero: draw a line at zero, for differences.

    Explained in the chapter *Residual vs. Base, fairly*.
    """
    check_axes(ax)
    check_entries("rows", rows, 1)
    for k, (label, entry) in enumerate(rows.items()):
        style = network_style(label) if label in NETWORK_LABELS else {"color": INK, "marker": "o"}
        hollow = "markerfacecolor" in style
        draw_estimate(ax, entry, k, seeds_at=k - 0.3, color=style["color"], marker=style["marker"], hollow=hollow)
    ax.set_yticks(range(len(rows)), [NETWORK_LABELS.get(label, label) for label in rows])
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.grid(visible=False, axis="y")
    if zero:
        ax.axvline(0, color=INK, linewidth=1)


def plain_log(axis: Axis) -> None:
    """Make ``ax.xaxis`` or ``ax.yaxis`` logarithmic, with ticks at 1, 2, 5, 10, … as plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator

    name = "x" if axis is axis.axes.xaxis else "y"
    axis.axes.set(**{f"{name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def significance(cells: Cells, metrics: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Which network the intervals of a table of differences ``A - B`` favour.

    Args:
        cells: an entry of the record's ``differences``.
        metrics: ``{metric: sign}``, 1 where more is better and -1 where less is.

    Returns:
        ``(metrics, cells)``: 1 where the interval says that A is better, -1 for B, 0 where it contains zero; the means,
        same shape; and the cells' names.
    """
    check_entries("cells", cells, 2)
    check_texts("metrics", metrics)
    for metric, sign in metrics.items():
        if sign not in (1, -1) or any(metric not in cell for cell in cells.values()):
            raise ValueError(f"metrics: expected {{metric of every cell: 1 or -1}}, got {metric!r}: {described(sign)}.")
    entries = [[cell[metric] for cell in cells.values()] for metric in metrics]
    side = np.array([[side_of_zero(entry) for entry in row] for row in entries])
    mean = np.array([[as_estimate(entry).mean for entry in row] for row in entries], dtype=float)
    return np.array(list(metrics.values()))[:, None] * side, mean, list(cells)


@draws_figure
def significance_map(
    cells: Cells,
    metrics: Mapping[str, int],
    *,
    a: str,
    b: str,
    rows: Sequence[str] | None = None,
    width: float = 8.4,
) -> Figure:
    """All differences ``A - B`` in a table, filled with the better network's colour where the interval excludes zero.

    Args:
        cells: an entry of the record's ``differences``.
        metrics: ``{metric: sign}``, 1 where more is better and -1 where less is.
        a, b: keys of :data:`NETWORK_LABELS`.
        rows: titles of the metrics.
        width: of the figure, inches.

    Explained in the chapter *Residual vs. Base, fairly*.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    better, mean, names = significance(cells, metrics)
    for name, network in (("a", a), ("b", b)):
        check_choice(name, network, NETWORK_LABELS)
    if rows is not None:
        check_texts("rows", rows, Sequence)
        if len(rows) != len(metrics):
            raise ValueError(f"rows: expected {len(metrics)} titles, one per metric, got {len(rows)}.")
    width = check_width(width)
    colors = [network_style(b)["color"], PALE["grey"], network_style(a)["color"]]
    figure, ax = plt.subplots(figsize=(width, 1.5 + 0.4 * len(metrics)))
    ax.imshow(better, cmap=ListedColormap(colors), vmin=-1, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(mean):
        places = 1 if abs(value) >= 1 else 2 if abs(value) >= 0.1 else 3
        color, weight = ("white", "bold") if better[i, j] else (INK, "normal")
        ax.text(j, i, f"{value:+.{places}f}", ha="center", va="center", size=9, color=color, weight=weight)
    solvers = [name.partition("-") for name in names]
    ax.set_xticks(range(len(names)), [f"{SOLVER_LABELS.get(s, s)}\n{nfe}" for s, _, nfe in solvers], size=9.5)
    ax.set_yticks(range(len(metrics)), rows or list(metrics))
    ax.tick_params(length=0)
    cell_borders(ax, len(metrics), len(names))
    labels = (f"{NETWORK_LABELS[b]} better", "interval contains 0", f"{NETWORK_LABELS[a]} better")
    patches = [Patch(color=color, label=label) for color, label in zip(colors, labels, strict=True)]
    figure.legend(handles=patches, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _of_solver(cells: Cells, solver: str, metric: str) -> tuple[np.ndarray, list[Entry]]:
    """NFEs of a solver's cells and the metric's estimates there."""
    check_text("metric", metric)
    for key, cell in cells.items():
        if metric not in cell or not key.rpartition("-")[2].isdecimal():
            raise ValueError(f"metric, cells: expected {{'SOLVER-NFE': {{{metric!r}: ...}}}}, got another in {key!r}.")
    found = [(int(key.rpartition("-")[2]), cell[metric]) for key, cell in cells.items() if key.startswith(solver)]
    if not found:
        raise ValueError(f"solvers: expected some of {', '.join(cells)}, got {solver!r}.")
    return np.array([nfe for nfe, _ in found], dtype=float), [entry for _, entry in found]


def _draw(ax: Axes, x: np.ndarray, entries: Sequence[Entry], style: dict[str, Any]) -> None:
    """A curve through the means, with interval and seeds at each."""
    ax.plot(x, [as_estimate(entry).mean for entry in entries], **{**style, "marker": "none"})
    for at, entry in zip(x, entries, strict=True):
        draw_estimate(
            ax, entry, at, seeds_at=at * _SPREAD**0.4, vertical=True, color=style["color"], marker=style["marker"],
            hollow="markerfacecolor" in style,
        )  # fmt: skip


def _nfe_axis(ax: Axes, by_cell: Cells) -> None:
    """A logarithmic axis with a tick at each NFE."""
    nfes = sorted({int(key.rpartition("-")[2]) for key in by_cell})
    ax.set_xscale("log")
    ax.set_xticks(nfes, [str(nfe) for nfe in nfes])
    ax.minorticks_off()
    ax.set_xlabel("network evaluations, NFE")
