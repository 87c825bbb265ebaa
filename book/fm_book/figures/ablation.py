"""Figures of an ablation: contributions, interactions, gradient norms, learning rates. Every seed is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_book.figures.common import (
    Entry,
    as_estimate,
    check_entries,
    check_texts,
    check_width,
    draw_estimate,
    panel_grid,
    side_of_zero,
)
from fm_core._checks import check_count, check_number, check_text, described
from fm_core.plotting._arrays import as_array
from fm_core.plotting.style import GREEN, INK, PINK, QUIET, draws_figure, model_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["contribution_panels", "gradient_maps", "interaction_panels", "rate_panels"]

_LINES = ((INK, "-", "o"), (GREEN, "--", "s"))


@draws_figure
def contribution_panels(
    groups: Mapping[str, Mapping[str, Mapping[str, Entry]]],
    metrics: Mapping[str, str],
    *,
    width: float = 8.6,
) -> Figure:
    """What each change does to each metric; for metrics of which less is better.

    Green is better and pink is worse. The marker is filled where the interval excludes zero, hollow where it contains
    zero.

    Args:
        groups: ``{heading: {change: {metric: estimate}}}``.
        metrics: ``{metric: label of its axis}``, one panel each.
        width: of the figure, inches.

    Raises:
        ValueError: no group, no metric, or a change without one of the metrics.

    Explained in the chapter *What makes the difference?*.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    if groups != {}:
        check_entries("groups", groups, 3)
    if metrics != {}:
        check_texts("metrics", metrics)
    width = check_width(width)
    rows = [(name, found) for changes in groups.values() for name, found in changes.items()]
    lacking = [f"{name!r} has no {m!r}" for name, found in rows for m in metrics if m not in found]
    if not rows or not metrics or lacking:
        raise ValueError(
            f"groups: expected at least one change, with an estimate of every metric, got {len(rows)} changes and "
            f"{len(metrics)} metrics{''.join(f', {words}' for words in lacking)}."
        )
    positions, headings, labels, y = [], [], [], 0.0
    for heading, changes in groups.items():
        headings.append((y, heading))
        positions += [y + k for k in range(1, len(changes) + 1)]
        labels += changes
        y += len(changes) + 1.4
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(width, 1.0 + 0.27 * (y + 1)), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (metric, label) in zip(axes.flat, metrics.items(), strict=True):
        ax.axvline(0, color=INK, linewidth=1.2, linestyle="-")
        for position, (_, found) in zip(positions, rows, strict=True):
            side = side_of_zero(found[metric])
            color = (QUIET, PINK, GREEN)[side]
            draw_estimate(ax, found[metric], position, seeds_at=position + 0.27, color=color, hollow=not side)
        ax.set(xlabel=label, ylim=(y - 0.6, -0.7))
        ax.margins(x=0.08)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
        for at, text, align in ((0.0, "← better", "left"), (1.0, "worse →", "right")):
            ax.text(at, 1.01, text, transform=ax.transAxes, ha=align, va="bottom", color=QUIET, fontsize=10)
    ticks = [*positions, *(position for position, _ in headings)]
    axes[0, 0].set_yticks(ticks, [*labels, *(heading for _, heading in headings)])
    for tick in axes[0, 0].get_yticklabels()[len(positions) :]:
        tick.set_fontweight("bold")
    return figure


@draws_figure
def interaction_panels(
    squares: Mapping[str, tuple[Sequence[str], Mapping[str, tuple[Entry, Entry]]]],
    *,
    label: str,
    columns: int = 4,
    width: float = 8.6,
) -> Figure:
    """Interactions of two factors: lines are parallel where the effects add up.

    Args:
        squares: ``{title: ((name of off, name of on), {line: (estimate off, estimate on)})}``, two lines each.
        label: of the vertical axis, shared.
        columns: panels side by side.
        width: of the figure, inches.

    Raises:
        ValueError: no square, or one without two ends and two lines.

    Explained in the chapter *What makes the difference?*.
    """
    check_texts("squares", squares)
    check_text("label", label)
    for title, square in squares.items():
        ends, lines = square if isinstance(square, tuple | list) and len(square) == 2 else ((), {})
        if len(ends) != 2 or len(lines) != 2:
            raise ValueError(f"squares[{title!r}]: expected 2 ends and 2 lines, got {described(square)}.")
        for line, pair in lines.items():
            for k in (0, 1):
                check_entries(f"squares[{title!r}][{line!r}]", pair[k], 0)
    columns = check_count("columns", columns, most=100)
    figure, axes = panel_grid(len(squares), columns, width=width, height=3.1, sharey=True)
    for ax, (title, (ends, lines)) in zip(axes, squares.items(), strict=True):
        for k, ((name, pair), (color, line, marker)) in enumerate(zip(lines.items(), _LINES, strict=True)):
            ax.plot([0, 1], [as_estimate(e).mean for e in pair], line, color=color, marker=marker, label=name)
            for x, entry in enumerate(pair):
                beside = x + 0.07 * (2 * k - 1)
                draw_estimate(ax, entry, x, seeds_at=beside, vertical=True, interval=False, color=color, marker=marker)
        ax.set_xticks([0, 1], ends)
        ax.set(xlim=(-0.35, 1.35))
        ax.margins(y=0.16)
        ax.set_title(title, size=11)
        ax.legend(fontsize=9)
    for ax in axes[::columns]:
        ax.set_ylabel(label)
    return figure


@draws_figure
def gradient_maps(
    runs: Mapping[str, tuple[Sequence[int], Mapping[str, Sequence[float]]]],
    *,
    limits: tuple[float, float] = (1e-3, 1.0),
    columns: int = 3,
    width: float = 8.6,
) -> Figure:
    """Gradient norm at each depth during training, one map per network, one logarithmic colour scale.

    Args:
        runs: ``{title: (steps, {depth: norms})}``, depths in the order of the signal, the same in every run.
        limits: of the colour scale.
        columns: maps side by side.
        width: of the figure, inches.

    Raises:
        ValueError: no run, runs with different depths, or curves and steps of different lengths.

    Explained in the chapter *What makes the difference?*.
    """
    from matplotlib.colors import LogNorm

    for title, run in runs.items() if isinstance(runs, Mapping) else {"": runs}.items():
        if not isinstance(run, tuple | list) or len(run) != 2 or not isinstance(run[1], Mapping):
            raise ValueError(f"runs[{title!r}]: expected steps and {{depth: norms}}, got {described(run)}.")
        for key, values in {"steps": run[0], **run[1]}.items():
            as_array(values, f"runs[{title!r}], {key}")
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        raise ValueError(f"limits: expected two numbers, got {described(limits)}.")
    low, high = (check_number("limits", limit, above=0) for limit in limits)
    if low >= high:
        raise ValueError(f"limits: expected rising numbers, got {described(limits)}.")
    names = {title: list(norms) for title, (_, norms) in runs.items()}
    depths = next(iter(names.values()), [])
    if not depths or any(found != depths for found in names.values()):
        raise ValueError(f"runs: expected at least one, the same depths in each, got {names}.")
    for title, (steps, norms) in runs.items():
        uneven = {name: len(values) for name, values in norms.items() if len(values) != len(steps)}
        if uneven:
            raise ValueError(f"runs[{title!r}]: expected {len(steps)} norms, one per step, got {uneven}.")
    figure, axes = panel_grid(len(runs), columns, width=width, height=1.0 + 0.19 * len(depths), sharey=True)
    mesh = None
    for ax, (title, (steps, norms)) in zip(axes, runs.items(), strict=True):
        mesh = ax.pcolormesh(
            np.asarray(steps),
            np.arange(len(depths)),
            np.clip(np.stack([as_array(norms[name]) for name in depths]), 1e-30, None),
            norm=LogNorm(low, high),
            cmap="cividis",
            shading="nearest",
            rasterized=True,
        )
        ax.set_title(title, size=11)
        ax.set(xlabel="step", ylim=(len(depths) - 0.5, -0.5))
        ax.grid(visible=False)
    axes[0].set_yticks(range(len(depths)), depths)
    assert mesh is not None  # for the type checker
    figure.colorbar(mesh, ax=axes, extend="both", label="norm of the gradient", aspect=30, shrink=0.9)
    return figure


@draws_figure
def rate_panels(
    rates: Mapping[str, Mapping[str, Mapping[str, Any]]],
    panels: Mapping[str, str],
    *,
    log: Sequence[str] = (),
    width: float = 8.6,
) -> Figure:
    """Quantities against the learning rate, for several networks: means and seeds.

    Args:
        rates: ``{network: {rate: {quantity: estimate, "diverged": number of runs}}}``; see ``model_style`` for the
            networks' names. Quantities are missing where every seed diverged.
        panels: ``{quantity: label of its axis}``.
        log: quantities with a logarithmic axis.
        width: of the figure, inches.

    Raises:
        ValueError: no network or no panel.

    Explained in the chapter *What makes the difference?*.
    """
    import matplotlib.pyplot as plt

    width = check_width(width)
    for name, value in (("rates", rates), ("panels", panels)):
        if value != {}:
            check_texts(name, value)
    if log != ():
        check_texts("log", log, Sequence)
    for network, found in rates.items():
        for rate, cell in found.items() if isinstance(found, Mapping) else {"": None}.items():
            if not isinstance(cell, Mapping) or "diverged" not in cell:
                raise ValueError(
                    f"rates[{network!r}]: expected {{rate: {{quantity: ..., 'diverged': n}}}}, got {found!r}."
                )
            check_number(f"rates[{network!r}]", float(rate), above=0)
            for quantity in panels:
                if quantity in cell:
                    check_entries(f"rates[{network!r}][{rate!r}]", cell[quantity], 0)
    if not rates or not panels:
        raise ValueError(f"rates, panels: expected at least one of each, got {len(rates)} and {len(panels)}.")
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 3.1), squeeze=False, layout="constrained")
    ticks = sorted({float(rate) for found in rates.values() for rate in found})
    for ax, (quantity, label) in zip(axes.flat, panels.items(), strict=True):
        for k, (network, found) in enumerate(rates.items()):
            style, marker = model_style(network), _LINES[k % 2][2]
            there = sorted(
                ((float(rate), cell) for rate, cell in found.items() if quantity in cell), key=lambda pair: pair[0]
            )
            x = [rate * (1 + 0.06 * (2 * k - 1)) for rate, _ in there]
            ax.plot(x, [as_estimate(cell[quantity]).mean for _, cell in there], marker=marker, **style)
            for at, (_, cell) in zip(x, there, strict=True):
                draw_estimate(
                    ax, cell[quantity], at, vertical=True, interval=False, color=style["color"], marker=marker
                )
            for rate, cell in found.items():
                if cell["diverged"] and quantity == next(iter(panels)):
                    text = {"ha": "center", "va": "top", "fontsize": 9, "transform": ax.get_xaxis_transform()}
                    ax.text(float(rate), 0.99 - 0.07 * k, f"{cell['diverged']} diverged", color=style["color"], **text)
        ax.set(xlabel="learning rate", ylabel=label, xscale="log")
        ax.set_xticks(ticks, [f"{rate:g}" for rate in ticks])
        ax.minorticks_off()
        ax.margins(x=0.14, y=0.14)
        if quantity in log:
            ax.set_yscale("log")
    axes[0, 0].legend(fontsize=10)
    return figure


def _rate(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")
