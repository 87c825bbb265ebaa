"""Figures and table columns of the chapter on guidance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fm_book.metrics import Estimate
from fm_core.plotting.style import BLUE, INK, QUIET, VERMILION, draws_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_field_errors", "draw_scales", "measured"]

PANELS = {
    "right": "share of the digits asked for",
    "frechet": "Fréchet distance",
    "recall": "recall",
    "variety": "variety within a label",
}
COLORS, STYLES = (VERMILION, "#E69F00", BLUE, INK), (":", "-.", "--", "-")

MEASURES = {
    "right": ("as asked", ".3f"),
    "pieces": ("in pieces", ".3f"),
    "frechet": ("Fréchet", ".1f"),
    "recall": ("recall", ".2f"),
    "variety": ("variety", ".1f"),
}


def measured(cells: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Columns of a table: the measures of cells of the record, each with its interval.

    Args:
        cells: of the experiment ``guidance``, one per row.
    """
    rows = list(cells)
    return {
        title: [format(Estimate.read(cell[name]), spec) for cell in rows] for name, (title, spec) in MEASURES.items()
    }


@draws_figure
def draw_scales(record: Mapping[str, Any]) -> Figure:
    """Four measures of guided digits against the scale, one line per number of steps, real digits in grey.

    Args:
        record: of the experiment ``guidance``.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(8.4, 5.6), sharex=True)
    scales = record["config"]["scales"]
    for ax, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        real = Estimate.read(record["real"][name])
        ax.axhline(real.mean, color=QUIET, linewidth=1.2, label="real digits")
        for steps, color, style in zip(record["config"]["steps"], COLORS, STYLES, strict=False):
            found = [Estimate.read(record["cells"][f"{scale:g}"][str(steps)][name]) for scale in scales]
            ax.plot(scales, [e.mean for e in found], style, color=color, label=f"{steps} steps")
            ends = [[e.low for e in found], [e.high for e in found]]
            ax.fill_between(scales, *ends, color=color, alpha=0.15, linewidth=0)
        ax.set_title(title)
    axes[0, 0].set_ylim(0, 1.03)
    for ax in axes[:, 1]:
        ax.set_yscale("log")
    for ax in axes[1]:
        ax.set_xlabel("guidance scale w")
    axes[0, 0].legend(loc="lower right")
    return figure


@draws_figure
def draw_field_errors(fields: Mapping[str, Any]) -> Figure:
    """Relative error of the network's guided field against the exact one over time, one line per scale.

    Args:
        fields: the entry ``fields`` of the record ``guidance``.
    """
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(5.6, 3.4))
    scales = [name for name in fields if name != "t"]
    for scale, color, style in zip(scales, COLORS[::-1], STYLES[::-1], strict=False):
        rows = zip(fields[scale]["error"], fields[scale]["exact"], strict=True)
        ax.plot(fields["t"], [(e / v) ** 0.5 for e, v in rows], style, color=color, label=f"w = {scale}")
    ax.set(xlabel="time t", ylabel="relative error", ylim=(0, None))
    ax.legend(loc="upper left")
    return figure
