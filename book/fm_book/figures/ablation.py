"""Pictures of an ablation: what each change is worth, where two changes meet, where the gradient is, which rate works.

One decision is made here. Every interval over seeds is drawn with the seeds themselves, because three points say more
than the bar that they were turned into. A mean is filled only where its interval leaves zero out, so that a change
that may be chance does not look like a finding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_core.plotting._arrays import as_array
from fm_core.plotting.style import CARD, INK, model_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["contribution_panels", "gradient_maps", "interaction_panels", "rate_panels"]

QUIET = "#6A7078"
BETTER, WORSE = "#0072B2", "#D55E00"
LINES = (("#0072B2", "-", "o"), ("#D55E00", "--", "s"))

Interval = Mapping[str, Any]  # "mean", "low" and "high" (None for one seed) and "values", one for each seed


def contribution_panels(
    groups: Mapping[str, Mapping[str, Mapping[str, Interval]]],
    metrics: Mapping[str, str],
    *,
    width: float = 8.6,
) -> Figure:
    """What each change does to each metric: mean over seeds, its interval, and every seed.

    Left of the zero line is better: give metrics of which less is better. A mean is a filled dot where the interval
    lies on one side of zero, hollow where it does not.

    Args:
        groups: ``{heading: {change: {metric: interval}}}``; an interval has ``mean``, ``low``, ``high`` and ``values``.
        metrics: ``{metric: label of its axis}``, one panel each.
        width: of the figure, in inches.

    Raises:
        ValueError: no group, no metric, or a change without one of the metrics.

    Explained in the chapter *What makes the difference?*.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    rows = [(name, found) for changes in groups.values() for name, found in changes.items()]
    lacking = [f"{name!r} has no {m!r}" for name, found in rows for m in metrics if m not in found]
    if not rows or not metrics or lacking:
        raise ValueError(
            f"{len(rows)} changes and {len(metrics)} metrics; {', '.join(lacking) or 'nothing to draw'}. Give at least "
            "one of each, and every change an interval for every metric."
        )
    places, headings, labels, y = [], [], [], 0.0
    for heading, changes in groups.items():
        headings.append((y, heading))
        places += [y + k for k in range(1, len(changes) + 1)]
        labels += changes
        y += len(changes) + 1.4
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(width, 1.0 + 0.27 * (y + 1)), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (metric, label) in zip(axes.flat, metrics.items(), strict=True):
        ax.axvline(0, color=INK, linewidth=1.2, linestyle="-")
        for place, (_, found) in zip(places, rows, strict=True):
            _draw_interval(ax, place, found[metric])
        ax.set(xlabel=label, ylim=(y - 0.6, -0.7))
        ax.margins(x=0.08)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
        for at, words, side in ((0.0, "← better", "left"), (1.0, "worse →", "right")):
            ax.text(at, 1.01, words, transform=ax.transAxes, ha=side, va="bottom", color=QUIET, fontsize=10)
    ticks = [*places, *(place for place, _ in headings)]
    axes[0, 0].set_yticks(ticks, [*labels, *(words for _, words in headings)])
    for tick in axes[0, 0].get_yticklabels()[len(places) :]:
        tick.set_fontweight("bold")
    return figure


def _draw_interval(ax: Any, y: float, found: Interval) -> None:
    """One mean with its interval, and the seeds beneath it as ticks."""
    low, high = found["low"], found["high"]
    sure = low is not None and (low > 0 or high < 0)
    color = QUIET if not sure else BETTER if high < 0 else WORSE
    if low is not None:
        ax.plot([low, high], [y, y], color=color, linestyle="-", linewidth=2.2 if sure else 1.4, solid_capstyle="butt")
    ax.plot(found["values"], [y + 0.27] * len(found["values"]), "|", color=INK, markersize=6, markeredgewidth=1.2)
    ax.plot(found["mean"], y, "o", color=color, markerfacecolor=color if sure else CARD, markersize=6.5, zorder=3)


def interaction_panels(
    squares: Mapping[str, tuple[Sequence[str], Mapping[str, tuple[Interval, Interval]]]],
    *,
    label: str,
    columns: int = 4,
    width: float = 8.6,
) -> Figure:
    """Two switches at a time: parallel lines are two changes that add up, others depend on each other.

    Args:
        squares: ``{title: ((name of off, name of on), {line: (interval off, interval on)})}``, two lines each; every
            seed is drawn as a point.
        label: of the vertical axis, shared.
        columns: panels side by side.
        width: of the figure, in inches.

    Raises:
        ValueError: no square, or one that has not two ends and two lines.

    Explained in the chapter *What makes the difference?*.
    """
    import matplotlib.pyplot as plt

    for title, (ends, lines) in squares.items():
        if len(ends) != 2 or len(lines) != 2:
            raise ValueError(f"{title!r} has {len(ends)} ends and {len(lines)} lines; a square has two of each.")
    if not squares:
        raise ValueError("squares is empty; give at least one.")
    columns = min(columns, len(squares))
    down = -(-len(squares) // columns)
    figure, axes = plt.subplots(
        down, columns, figsize=(width, 3.1 * down), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (title, (ends, lines)) in zip(axes.flat, squares.items(), strict=False):
        for k, ((name, pair), (color, line, mark)) in enumerate(zip(lines.items(), LINES, strict=True)):
            ax.plot([0, 1], [found["mean"] for found in pair], line, color=color, marker=mark, markersize=7, label=name)
            for x, found in enumerate(pair):
                side = x + 0.07 * (2 * k - 1)  # the two lines' seeds beside each other
                ax.plot([side] * len(found["values"]), found["values"], "_", color=color, markersize=7)
        ax.set_xticks([0, 1], ends)
        ax.set(xlim=(-0.35, 1.35))
        ax.margins(y=0.16)
        ax.set_title(title, size=11)
        ax.legend(fontsize=9)
    for ax in list(axes.flat)[len(squares) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel(label)
    return figure


def gradient_maps(
    runs: Mapping[str, tuple[Sequence[int], Mapping[str, Sequence[float]]]],
    *,
    limits: tuple[float, float] = (1e-3, 1.0),
    columns: int = 3,
    width: float = 8.6,
) -> Figure:
    """Gradient norm at each depth over the training, one map per network, all with the same logarithmic colours.

    Args:
        runs: ``{title: (steps, {depth: norms})}``, depths in the order of the signal, the same in every run.
        limits: smallest and largest norm that still have a colour of their own.
        columns: maps side by side.
        width: of the figure, in inches.

    Raises:
        ValueError: no run, runs with different depths, or curves and steps of different lengths.

    Explained in the chapter *What makes the difference?*.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    names = {title: list(norms) for title, (_, norms) in runs.items()}
    depths = next(iter(names.values()), [])
    if not depths or any(found != depths for found in names.values()):
        raise ValueError(f"runs have the depths {names}; give at least one run, and the same depths in each.")
    for title, (steps, norms) in runs.items():
        uneven = {name: len(values) for name, values in norms.items() if len(values) != len(steps)}
        if uneven:
            raise ValueError(f"{title!r} has {len(steps)} steps but curves of lengths {uneven}; give one norm a step.")
    columns = min(columns, len(runs))
    down = -(-len(runs) // columns)
    figure, axes = plt.subplots(
        down,
        columns,
        figsize=(width, 0.7 + down * (0.7 + 0.19 * len(depths))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, (title, (steps, norms)) in zip(axes.flat, runs.items(), strict=False):
        picture = ax.pcolormesh(
            as_array(steps),
            np.arange(len(depths)),
            np.clip(np.stack([as_array(norms[name]) for name in depths]), 1e-30, None),
            norm=LogNorm(*limits),
            cmap="cividis",
            shading="nearest",
            rasterized=True,
        )
        ax.set_title(title, size=11)
        ax.set(xlabel="step", ylim=(len(depths) - 0.5, -0.5))
        ax.grid(visible=False)
    for ax in list(axes.flat)[len(runs) :]:
        ax.set_axis_off()
    axes[0, 0].set_yticks(range(len(depths)), depths)
    figure.colorbar(picture, ax=axes, extend="both", label="norm of the gradient", aspect=30, shrink=0.9)
    return figure


def rate_panels(
    rates: Mapping[str, Mapping[str, Mapping[str, Any]]],
    panels: Mapping[str, str],
    *,
    log: Sequence[str] = (),
    width: float = 8.6,
) -> Figure:
    """What a training's learning rate does, for several networks: means and seeds over the rate.

    Args:
        rates: ``{network: {rate: {quantity: interval, "diverged": how many trainings}}}``; a network's name holds
            ``"base"`` or ``"residual"``. Quantities are missing where every seed diverged.
        panels: ``{quantity: label of its axis}``.
        log: quantities with a logarithmic axis.
        width: of the figure, in inches.

    Raises:
        ValueError: no network or no panel.

    Explained in the chapter *What makes the difference?*.
    """
    import matplotlib.pyplot as plt

    if not rates or not panels:
        raise ValueError(f"{len(rates)} networks and {len(panels)} panels; give at least one of each.")
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 3.1), squeeze=False, layout="constrained")
    ticks = sorted({float(rate) for found in rates.values() for rate in found})
    for ax, (quantity, label) in zip(axes.flat, panels.items(), strict=True):
        for k, (network, found) in enumerate(rates.items()):
            style = model_style(network)
            marker = LINES[k % 2][2]
            there = sorted((float(rate), facts) for rate, facts in found.items() if quantity in facts)
            x = [rate * (1 + 0.06 * (2 * k - 1)) for rate, _ in there]
            ax.plot(x, [facts[quantity]["mean"] for _, facts in there], marker=marker, **style)
            for place, (_, facts) in zip(x, there, strict=True):
                values = facts[quantity]["values"]
                ax.plot([place] * len(values), values, "_", color=style["color"], markersize=8)
            for rate, facts in found.items():
                if facts["diverged"] and quantity == next(iter(panels)):
                    told = {"ha": "center", "va": "top", "fontsize": 9, "transform": ax.get_xaxis_transform()}
                    ax.text(float(rate), 0.99 - 0.07 * k, f"{facts['diverged']} diverged", color=style["color"], **told)
        ax.set(xlabel="learning rate", ylabel=label, xscale="log")
        ax.set_xticks(ticks, [f"{rate:g}" for rate in ticks])
        ax.minorticks_off()
        ax.margins(x=0.14, y=0.14)
        if quantity in log:
            ax.set_yscale("log")
    axes[0, 0].legend(fontsize=10)
    return figure
